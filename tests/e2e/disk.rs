//! A disk that is full, fails, is read-only or gone: pulls go on, and the store comes back.
//!
//! The data directory is an ext4 file system on a loop device, in a mount namespace that takes all
//! mounts with it, whatever becomes of the test.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};
use tempfile::TempDir;

use crate::{
    image::Layout,
    lab::HUB,
    larder::Larder,
    process::{Daemon, run, wait_for},
    upstream::Upstream,
};

/// Bytes in the layer of an image.
const LAYER: u64 = 1 << 20;

/// Bytes of the file system.
const DISK: u64 = 40 << 20;

/// What is left of it while it fails: what tells which files there are.
const BEGINNING: usize = 1 << 20;

/// Nothing leaves but for what the disk refuses.
const CACHE: &str = r#"
[cache]
min_free = "0B"
max_size = "100%"
sweep_interval = "365d"
"#;

/// Then no room is made for what is new.
const PINNED: &str = r#"
[[cache.rule]]
match = "docker.io/**"
pin = true
"#;

/// Files it can have.
const INODES: u32 = 400;

#[test]
fn every_trouble_with_the_disk_is_lived_through() {
    let mut lab = Lab::start(PINNED);
    lab.pull_new();
    lab.lives_through(
        "a full disk",
        |disk| disk.fill(&disk.data()),
        |disk| disk.empty(&disk.data()),
    );
    lab.lives_through("no inodes", Disk::take_inodes, Disk::give_inodes);
    lab.lives_through("a read-only mount", Disk::forbid_writing, Disk::unmount);
    lab.lives_through("no mount", Disk::unmount, Disk::mount_again);
    lab.lives_through("input/output errors", Disk::fail, Disk::heal);
    lab.starts_on_a_full_disk();
}

/// What was unused longest leaves for what another program writes, before anyone sweeps.
#[test]
fn a_full_disk_is_given_room_at_once() {
    let mut lab = Lab::start("");
    let images: Vec<String> = (0..12).map(|_| lab.pull_new()).collect();
    lab.disk.take_but(512 * 1024);
    wait_for("room", || (lab.evicted() > 0.0).then_some(()));
    wait_for("the store to work", || (lab.writable() == 1.0).then_some(()));
    let kept = lab.pull_new();
    assert!(lab.evicted() < 6.0 * LAYER as f64, "{}", lab.evicted());
    lab.are_kept(&[images[11].clone(), kept]);
    assert!(lab.disk.data().join("ballast").exists());
}

/// Larder on a disk of its own, and an upstream with as many images as are wanted. The fields go in
/// this order, the files last.
struct Lab {
    larder: Larder,
    hub: Upstream,
    disk: Disk,
    images: usize,
    directory: TempDir,
}

impl Lab {
    fn start(rules: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("larder-e2e-").tempdir().unwrap();
        let path = directory.path();
        let disk = Disk::new(path);
        let hub = Upstream::start(HUB, path);
        let config = format!("{CACHE}{rules}\n{}default = true\n", hub.as_config());
        let (listen, admin) = (free_address(), free_address());
        let larder = Larder::start_by(&disk.inside(""), listen, admin, &config, path);
        Self { larder, hub, disk, images: 0, directory }
    }

    /// What is not cached passes through, and is kept as soon as that is possible again.
    fn lives_through(&mut self, what: &str, harm: impl Fn(&Disk), mend: impl Fn(&Disk)) {
        println!("--- {what}");
        let cached = self.pull_new();
        self.wait_until_kept();
        self.wait_until_named(&cached);
        let lines = self.lines();
        harm(&self.disk);
        let passed = self.pull_new();
        self.pull(&cached);
        wait_for("the trouble to be told", || (self.writable() == 0.0).then_some(()));
        let readiness = self.larder.readiness();
        assert!(readiness.starts_with("HTTP/1.1 200"), "{readiness}");
        assert!(readiness.contains("ready; the store cannot be written: "), "{readiness}");
        self.pull(&passed);
        self.pull_new();
        assert!(self.larder.metric("larder_passthrough_total") >= 4.0);

        mend(&self.disk);
        wait_for("the store to work again", || (self.writable() == 1.0).then_some(()));
        assert!(self.larder.readiness().ends_with("ready\n"));
        assert_eq!(self.lines(), (lines.0 + 1, lines.1 + 1), "one line each");
        let kept = self.pull_new();
        self.pull(&passed);
        self.are_kept(&[cached, passed, kept]);
    }

    /// They are served by another life, without upstream.
    fn are_kept(&mut self, images: &[String]) {
        self.wait_until_kept();
        self.hub.stop();
        self.larder.restart();
        images.iter().for_each(|image| self.pull(image));
        self.hub.restart();
    }

    /// A client has all bytes before they are synced.
    fn wait_until_kept(&self) {
        wait_for("the downloads' end", || {
            (self.larder.metric("larder_downloads_in_flight") == 0.0).then_some(())
        });
    }

    /// The index is a moment behind what is kept, and what it was not told in time is lost if it
    /// cannot be written any more.
    fn wait_until_named(&self, image: &str) {
        let list = self.disk.data().join("index.json");
        wait_for("the image's name on the disk", || {
            let names = fs::read_to_string(&list).unwrap();
            names.contains(&format!("/{image}:latest")).then_some(())
        });
    }

    fn starts_on_a_full_disk(&mut self) {
        let cached = self.pull_new();
        self.wait_until_kept();
        self.wait_until_named(&cached);
        self.disk.fill(&self.disk.data());
        self.larder.restart();
        self.pull(&cached);
        self.pull_new();
        self.disk.empty(&self.disk.data());
        wait_for("the store to work", || (self.writable() == 1.0).then_some(()));
        let kept = self.pull_new();
        self.are_kept(&[cached, kept]);
    }

    /// Pulls an image that nobody has pulled before, and names it.
    fn pull_new(&mut self) -> String {
        self.images += 1;
        let name = format!("noise{}", self.images);
        let layout = Layout::noise(&self.directory.path().join(&name), 1, LAYER);
        self.hub.push(layout.path(), &format!("library/{name}:latest"), "--preserve-digests");
        fs::remove_dir_all(layout.path()).unwrap();
        self.pull(&name);
        name
    }

    /// skopeo verifies every digest.
    fn pull(&self, name: &str) {
        let copy = self.directory.path().join("copy");
        let larder = self.larder.address();
        run(&format!(
            "skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://{larder}/{name} dir:{}",
            copy.display()
        ));
        fs::remove_dir_all(copy).unwrap();
    }

    fn evicted(&self) -> f64 {
        self.larder.metric("larder_evicted_bytes_total")
    }

    fn writable(&self) -> f64 {
        self.larder.metric("larder_store_writable")
    }

    /// How often the log says that the store cannot be written, and that it can again.
    fn lines(&self) -> (usize, usize) {
        let log = self.larder.log();
        let count = |what| log.matches(what).count();
        (count("the store cannot be written"), count("the store can be written again"))
    }
}

/// A small file system in a file, mounted in a namespace of its own.
struct Disk {
    holder: Daemon,
    image: PathBuf,
    data: PathBuf,
}

impl Disk {
    fn new(directory: &Path) -> Self {
        let holder = Daemon::start("mounts", directory, "unshare --mount sleep infinity");
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        wait_for("the namespace", || {
            let theirs = fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).ok()?;
            (theirs != own).then_some(())
        });
        let data = directory.join("larder/data");
        fs::create_dir_all(&data).unwrap();
        let disk = Self { holder, image: directory.join("image"), data };
        File::create(&disk.image).unwrap().set_len(DISK).unwrap();
        // With a journal, it would not get over an error of what is below.
        let options = format!("-q -m 0 -N {INODES} -O ^has_journal -E lazy_itable_init=0");
        disk.run(&format!("mkfs.ext4 {options} {}", disk.image.display()));
        disk.mount();
        disk
    }

    /// The line that runs `line` where the mounts are to be seen.
    fn inside(&self, line: &str) -> String {
        format!("nsenter --mount=/proc/{}/ns/mnt {line}", self.holder.id())
    }

    /// A file in there, as it is called out here.
    fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").unwrap())
    }

    fn run(&self, line: &str) {
        run(&self.inside(line));
    }

    fn data(&self) -> PathBuf {
        self.seen(&self.data)
    }

    fn mount(&self) {
        self.run(&format!("mount -o loop {} {}", self.image.display(), self.data.display()));
    }

    /// The topmost mount, by force: what is open stays so.
    fn unmount(&self) {
        self.run(&format!("umount --lazy {}", self.data.display()));
    }

    /// Nothing was written where nothing was mounted.
    fn mount_again(&self) {
        assert_eq!(fs::read_dir(self.data()).unwrap().count(), 0);
        self.mount();
    }

    /// What is open for writing stays so.
    fn forbid_writing(&self) {
        let data = self.data.display();
        self.run(&format!("mount --bind {data} {data}"));
        self.run(&format!("mount -o remount,bind,ro {data}"));
    }

    /// Another program takes all but so many bytes, in one go.
    fn take_but(&self, bytes: u64) {
        let disk = statvfs(&self.data()).unwrap();
        let ballast = File::create(self.data().join("ballast")).unwrap();
        let all = disk.f_bavail * disk.f_frsize;
        fallocate(ballast, FallocateFlags::empty(), 0, all - bytes).unwrap();
    }

    /// Another program writes until there is no room.
    fn fill(&self, directory: &Path) {
        let mut ballast = File::create(directory.join("ballast")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while write_synced(&mut ballast, size).is_ok() {}
        }
    }

    /// All but the beginning of the device goes: what is not in memory cannot be read, and nothing
    /// can be written.
    fn fail(&self) {
        self.run("sync");
        let image = fs::read(&self.image).unwrap();
        let blobs = fs::read_dir(self.data().join("blobs/sha256")).unwrap();
        for blob in blobs.map(|blob| File::open(blob.unwrap().path()).unwrap()) {
            fadvise(blob, 0, None, Advice::DontNeed).unwrap();
        }
        fs::write(self.lost_part(), &image[BEGINNING..]).unwrap();
        self.resize(BEGINNING as u64);
    }

    fn heal(&self) {
        self.resize(DISK);
        let image = File::options().write(true).open(&self.image).unwrap();
        image.write_all_at(&fs::read(self.lost_part()).unwrap(), BEGINNING as u64).unwrap();
    }

    /// Between the two steps, the device reads as zeros where the file has ended.
    fn resize(&self, size: u64) {
        let image = &self.image;
        let listed = run(&self.inside(&format!("losetup -n -O NAME -j {}", image.display())));
        File::options().write(true).open(image).unwrap().set_len(size).unwrap();
        self.run(&format!("losetup --set-capacity {}", listed.trim()));
    }

    fn lost_part(&self) -> PathBuf {
        self.data.with_file_name("lost")
    }

    fn empty(&self, directory: &Path) {
        fs::remove_file(directory.join("ballast")).unwrap();
    }

    /// Another program makes files until there are no more.
    fn take_inodes(&self) {
        let directory = self.data().join("ballast");
        fs::create_dir(&directory).unwrap();
        let made = (0..).map(|number: u32| File::create(directory.join(number.to_string())));
        let end = made.take_while(Result::is_ok).count();
        assert!(end > 10, "{end}");
    }

    fn give_inodes(&self) {
        fs::remove_dir_all(self.data().join("ballast")).unwrap();
    }
}

fn write_synced(file: &mut File, size: usize) -> io::Result<()> {
    file.write_all(&vec![1; size])?;
    file.sync_data()
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

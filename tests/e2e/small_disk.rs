//! A disk of Larder's own that tests fill, take away and let fail.
//!
//! It is a file system on a loop device, in a mount namespace that takes all mounts with it,
//! whatever becomes of the test.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};

use crate::process::{Daemon, run, wait_for};

/// Bytes of the file system.
const DISK: u64 = 40 << 20;

/// As many as btrfs is content with.
const LEAST_BTRFS: u64 = 256 << 20;

/// What is left of it while it fails: what tells which files there are.
const BEGINNING: usize = 1 << 20;

/// Blocks of 1 KiB in that part which would be free for content, and are not to be.
const NOT_FOR_CONTENT: Range<usize> = 384..BEGINNING >> 10;

/// Files it can have.
const INODES: u32 = 400;

/// A small file system in a file, mounted in a namespace of its own.
pub struct Disk {
    holder: Daemon,
    image: PathBuf,
    data: PathBuf,
}

impl Disk {
    /// Mounts it where Larder's data is to be below `directory`.
    pub fn new(directory: &Path) -> Self {
        // With a journal, it would not get over an error of what is below.
        let options = format!("-m 0 -b 1024 -N {INODES} -O ^has_journal -E lazy_itable_init=0");
        let bad = directory.join("bad-blocks");
        let blocks: String = NOT_FOR_CONTENT.map(|block| format!("{block}\n")).collect();
        fs::write(&bad, blocks).unwrap();
        let mkfs = format!("mkfs.ext4 -q {options} -l {}", bad.display());
        let disk = Self::formatted(directory, DISK, &mkfs);
        disk.mount();
        disk
    }

    /// As [`Self::new`], but with btrfs, and with more room than is of use: [`Self::limit`] has the say.
    pub fn with_quota(directory: &Path) -> Self {
        let disk = Self::formatted(directory, LEAST_BTRFS, "mkfs.btrfs -q");
        let (image, whole, data) = (disk.image.display(), disk.whole(), disk.data.display());
        fs::create_dir(&whole).unwrap();
        let whole = whole.display();
        disk.run(&format!("mount -o loop {image} {whole}"));
        disk.run(&format!("btrfs quota enable {whole}"));
        disk.run(&format!("btrfs subvolume create {whole}/data"));
        disk.run(&format!("mount --bind {whole}/data {data}"));
        disk
    }

    fn formatted(directory: &Path, size: u64, mkfs: &str) -> Self {
        let holder = Daemon::start("mounts", directory, "unshare --mount sleep infinity");
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        wait_for("the namespace", || {
            let theirs = fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).ok()?;
            (theirs != own).then_some(())
        });
        let data = directory.join("larder/data");
        fs::create_dir_all(&data).unwrap();
        let disk = Self { holder, image: directory.join("image"), data };
        File::create(&disk.image).unwrap().set_len(size).unwrap();
        disk.run(&format!("{mkfs} {}", disk.image.display()));
        disk
    }

    /// Lets the data take no more than so many bytes, in the words of btrfs-qgroup(8). That itself is
    /// written too, and must not be of the data: the first subvolume's quota is meant.
    pub fn limit(&self, quota: &str) {
        self.run(&format!("btrfs qgroup limit {quota} 0/256 {}", self.whole().display()));
    }

    /// Where a file system is mounted of which the data is a part.
    fn whole(&self) -> PathBuf {
        self.data.with_file_name("whole")
    }

    /// The line that runs `line` where the mounts are to be seen.
    pub fn inside(&self, line: &str) -> String {
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

    /// Its root.
    pub fn data(&self) -> PathBuf {
        self.seen(&self.data)
    }

    fn mount(&self) {
        self.run(&format!("mount -o loop {} {}", self.image.display(), self.data.display()));
    }

    /// The topmost mount, by force: what is open stays so.
    pub fn unmount(&self) {
        self.run(&format!("umount --lazy {}", self.data.display()));
    }

    /// Nothing was written where nothing was mounted.
    pub fn mount_again(&self) {
        assert_eq!(fs::read_dir(self.data()).unwrap().count(), 0);
        self.mount();
    }

    /// What is open for writing stays so.
    pub fn forbid_writing(&self) {
        let data = self.data.display();
        self.run(&format!("mount --bind {data} {data}"));
        self.run(&format!("mount -o remount,bind,ro {data}"));
    }

    /// Another program writes until there is no room.
    pub fn fill(&self, directory: &Path) {
        let mut ballast = File::create(directory.join("ballast")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while write_synced(&mut ballast, size).is_ok() {}
        }
    }

    /// All but the beginning of the device goes: what is not in memory cannot be read, and nothing
    /// can be written. Meanwhile nobody writes: the file would grow again.
    pub fn fail(&self) {
        let data = self.data.display();
        self.run(&format!("fsfreeze --freeze {data}"));
        let image = fs::read(&self.image).unwrap();
        let blobs = fs::read_dir(self.data().join("blobs/sha256")).unwrap();
        for blob in blobs.map(|blob| File::open(blob.unwrap().path()).unwrap()) {
            fadvise(blob, 0, None, Advice::DontNeed).unwrap();
        }
        fs::write(self.lost_part(), &image[BEGINNING..]).unwrap();
        self.image().set_len(BEGINNING as u64).unwrap();
        self.tell_size();
        self.run(&format!("fsfreeze --unfreeze {data}"));
    }

    /// Undoes [`Self::fail`].
    pub fn heal(&self) {
        let lost = fs::read(self.lost_part()).unwrap();
        self.image().write_all_at(&lost, BEGINNING as u64).unwrap();
        self.tell_size();
    }

    fn image(&self) -> File {
        File::options().write(true).open(&self.image).unwrap()
    }

    /// Makes the device as large as its file.
    fn tell_size(&self) {
        let image = self.image.display();
        let device = run(&self.inside(&format!("losetup -n -O NAME -j {image}")));
        self.run(&format!("losetup --set-capacity {}", device.trim()));
    }

    fn lost_part(&self) -> PathBuf {
        self.data.with_file_name("lost")
    }

    /// Another program takes all but so many bytes, in one go.
    pub fn take_but(&self, bytes: u64) {
        let disk = statvfs(&self.data()).unwrap();
        let ballast = File::create(self.data().join("ballast")).unwrap();
        let all = disk.f_bavail * disk.f_frsize;
        fallocate(ballast, FallocateFlags::empty(), 0, all - bytes).unwrap();
    }

    /// Undoes [`Self::fill`].
    pub fn empty(&self, directory: &Path) {
        fs::remove_file(directory.join("ballast")).unwrap();
    }

    /// Another program makes files until there are no more.
    pub fn take_inodes(&self) {
        let directory = self.data().join("ballast");
        fs::create_dir(&directory).unwrap();
        let made = (0..).map(|number: u32| File::create(directory.join(number.to_string())));
        let end = made.take_while(Result::is_ok).count();
        assert!(end > 10, "{end}");
    }

    /// Undoes [`Self::take_inodes`].
    pub fn give_inodes(&self) {
        fs::remove_dir_all(self.data().join("ballast")).unwrap();
    }
}

fn write_synced(file: &mut File, size: usize) -> io::Result<()> {
    file.write_all(&vec![1; size])?;
    file.sync_data()
}

//! What the index cannot write while the disk is full it has when there is room again: tags and when
//! they were checked, proofs, pins by command, and the order in which images were used.
//!
//! `index.json` remembers some of it too, and is removed between two lives: only the index can tell.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    image::Layout,
    impaired::Impaired,
    lab::directory,
    larder::PROGRAM,
    process::{command, run, succeeds, wait_for},
    small_disk::Disk,
};

/// Nothing leaves for the full disk, and a pull is a check of its tag.
const CONFIG: &str = r#"
[cache]
min_free = "0B"
max_size = "100%"

[[cache.rule]]
match = "docker.io/**"
tag_ttl = "0s"
pin = true
"#;

/// In the order in which they are pulled at first.
const IMAGES: [&str; 3] = ["old", "used", "unused"];

/// Bytes in the layer of an image: more than all that is not content takes up.
const LAYER: u64 = 8 << 20;

#[test]
fn what_a_full_disk_kept_from_the_index_outlives_a_kill() {
    let mut lab = Lab::start();
    let before = lab.image("used");
    lab.while_the_index_fails(|lab| {
        wait_for("a check of a second that has no check yet", || {
            lab.pull("used");
            (lab.image("used")["checked"] != before["checked"]).then_some(())
        });
        assert!(lab.has_twin(), "proved by upstream");
        lab.pin("old");
    });

    let told = IMAGES.map(|name| lab.image(name));
    lab.impaired.larder.kill();
    lab.forget_index_json();
    lab.impaired.hub.stop();
    lab.impaired.larder.start_again(&lab.disk.inside(PROGRAM));
    for (name, told) in IMAGES.iter().zip(told) {
        let image = lab.image(name);
        for key in ["digest", "checked", "added", "pinned", "platforms", "bytes"] {
            assert_eq!(image[key], told[key], "{key} of {image}");
        }
    }
    assert_eq!(lab.image("old")["pinned"], "command");
    assert!(lab.has_twin(), "the proof is kept");
    IMAGES.iter().for_each(|name| lab.pull(name));
}

#[test]
fn what_was_used_on_a_full_disk_is_not_what_leaves() {
    let mut lab = Lab::start();
    lab.while_the_index_fails(|lab| {
        wait_for("a use that is later than all others", || {
            lab.pull("used");
            let unused = |name| lab.image(name)["unused_seconds"].as_u64().unwrap();
            (unused("used") < unused("unused")).then_some(())
        });
        lab.pin("old");
    });

    let held = lab.impaired.larder.metric("larder_store_bytes");
    lab.impaired.larder.stop();
    lab.forget_index_json();
    lab.pin_by_command_only();
    lab.impaired.hub.stop();
    let limited = format!("env LARDER_CACHE_MAX_SIZE={held}B {PROGRAM}");
    lab.impaired.larder.start_again(&lab.disk.inside(&limited));
    wait_for("something to leave", || (!lab.has("unused")).then_some(()));
    assert!(lab.has("old") && lab.has("used"), "one is pinned, the other was used later");
    ["old", "used"].iter().for_each(|name| lab.pull(name));
}

/// Larder on a small disk with all images. The fields go in this order, the files last.
struct Lab {
    impaired: Impaired,
    disk: Disk,
    /// The path of a blob that the mirror holds, in a repository where it has not been asked for.
    twin: String,
    directory: TempDir,
}

impl Lab {
    fn start() -> Self {
        let directory = directory();
        let disk = Disk::new(directory.path());
        let impaired = Impaired::start(&disk.inside(PROGRAM), CONFIG, directory.path());
        let mut lab = Self { impaired, disk, twin: String::new(), directory };
        for name in IMAGES {
            let layout = lab.publish(name);
            if name == "used" {
                lab.impaired.hub.push(layout.path(), "library/twin:latest", "--preserve-digests");
                lab.twin = format!("library/twin/blobs/{}", layout.blobs().next().unwrap());
            }
            lab.pull(name);
        }
        lab.impaired.wait_until_kept();
        lab
    }

    fn publish(&mut self, name: &str) -> Layout {
        let layout = Layout::noise(&self.directory.path().join(name), 1, LAYER);
        let image = format!("library/{name}:latest");
        self.impaired.hub.push(layout.path(), &image, "--preserve-digests");
        layout
    }

    /// Fills the disk, does something that the index should remember until it cannot, and makes room.
    fn while_the_index_fails(&self, work: impl Fn(&Lab)) {
        self.disk.fill(&self.disk.data());
        wait_for("the index to fail", || {
            self.pull("used");
            let log = self.impaired.larder.log();
            log.contains("the index cannot be written").then_some(())
        });
        work(self);
        self.disk.empty(&self.disk.data());
        self.impaired.wait_until_writable();
        wait_for("the index to know everything", || self.has_written_all().then_some(()));
    }

    /// Who takes a pin away is told first if that cannot be written, even of one that is not there.
    fn has_written_all(&self) -> bool {
        let told = command(&self.impaired.larder.command("unpin unused")).output().unwrap();
        let told = String::from_utf8(told.stderr).unwrap();
        assert!(told.contains("not pinned") || told.contains("cannot be written"), "{told}");
        told.contains("not pinned")
    }

    fn pull(&self, name: &str) {
        self.impaired.pull(name);
    }

    /// That there is no room for it is told, and an error; it is pinned nevertheless.
    fn pin(&self, name: &str) {
        let line = self.impaired.larder.command(&format!("pin {name}"));
        assert!(!succeeds(&line), "it cannot be written");
        assert_eq!(self.image(name)["pinned"], "command");
    }

    /// What `larder ls` tells of an image.
    fn image(&self, name: &str) -> Value {
        self.listed(name).expect(name)
    }

    fn has(&self, name: &str) -> bool {
        self.listed(name).is_some()
    }

    fn listed(&self, name: &str) -> Option<Value> {
        let listed = run(&self.impaired.larder.command("ls --json"));
        let mut images = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        images.find(|image| image["repository"] == format!("library/{name}"))
    }

    fn has_twin(&self) -> bool {
        let larder = self.impaired.larder.address();
        succeeds(&format!(
            "curl --fail --silent --output /dev/null http://{larder}/v2/{}",
            self.twin
        ))
    }

    fn pin_by_command_only(&self) {
        let path = self.directory.path().join("larder/larder.toml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config.replace("pin = true\n", "")).unwrap();
    }

    fn forget_index_json(&self) {
        fs::remove_file(self.disk.data().join("index.json")).unwrap();
    }
}

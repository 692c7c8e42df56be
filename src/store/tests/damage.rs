//! Whatever happens to the index and to `index.json`, what is on disk is served.

use super::*;

/// What every damaged copy must still serve.
struct Content {
    repository: Repository,
    layer: Digest,
    image: Digest,
    index: Digest,
}

impl Content {
    async fn put(test: &TestStore) -> Content {
        let layer = test.put(&vec![9; 100_000]).await;
        let image = test.put_image(&layer, &[&layer]).await;
        let index = test.put_index(&[&image]).await;
        let repository = repository("docker.io/library/busybox");
        test.store.set_tag(&repository, &tag("latest"), &index, SystemTime::now());
        test.store.prove_manifest(&repository, &image);
        test.store.prove_blob(&repository, &layer);
        test.store.pin(&pinned()).await.unwrap().unwrap();
        Content { repository, layer, image, index }
    }

    async fn check(&self, test: &TestStore, case: &str) {
        let tagged = test.store.tag(&self.repository, &tag("latest"));
        assert_eq!(tagged.map(|tag| tag.digest), Some(self.index.clone()), "{case}");
        for manifest in [&self.index, &self.image] {
            assert!(test.store.is_proved(&self.repository, manifest), "{case}");
            let read = test.store.manifest(manifest).await.unwrap();
            assert!(read.is_some(), "{case}");
        }
        assert!(test.store.is_listed(&self.repository, &self.layer), "{case}");
        assert!(test.store.is_pinned(&pinned()), "{case}");
        let layer = test.read(&self.layer).await;
        assert!(layer.is_some_and(|bytes| sha256(&bytes) == self.layer), "{case}");
    }
}

fn pinned() -> ImageName {
    "docker.io/library/busybox:latest".parse().unwrap()
}

/// xorshift64: damage that its seed repeats.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end.max(1) as u64)).unwrap()
    }
}

fn damage(index: &Path, random: &mut Random) -> &'static str {
    let mut files = Vec::new();
    list_files(index, &mut files);
    let file = &files[random.below(files.len())];
    let mut bytes = fs::read(file).unwrap();
    match random.below(7) {
        0 => {
            fs::remove_dir_all(index).unwrap();
            "directory deleted"
        }
        1 => {
            fs::remove_file(file).unwrap();
            "file deleted"
        }
        2 => {
            bytes.truncate(random.below(bytes.len()));
            fs::write(file, bytes).unwrap();
            "truncated"
        }
        3 => {
            bytes.iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            fs::write(file, bytes).unwrap();
            "garbage"
        }
        4 => {
            fs::remove_dir_all(index).unwrap();
            fs::write(index, b"no directory").unwrap();
            "a file in its place"
        }
        5 => {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
            "a directory in a file's place"
        }
        _ => {
            for _ in 0..=random.below(20) {
                let bit = random.below(bytes.len() * 8);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            fs::write(file, bytes).unwrap();
            "bits flipped"
        }
    }
}

fn list_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list_files(&path, files);
        } else {
            files.push(path);
        }
    }
    files.sort();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

#[tokio::test]
async fn any_damage_of_the_index_is_survived() {
    let original = TestStore::new();
    let content = Content::put(&original).await;
    for n in 0..4000u32 {
        let digest = sha256(&n.to_le_bytes());
        original.store.prove_blob(&content.repository, &digest);
    }
    original.store.close().await;
    for seed in 0..200 {
        let directory = tempfile::tempdir().unwrap();
        copy(original.directory.path(), directory.path());
        let kind = damage(&directory.path().join("index"), &mut Random::new(seed));
        let case = format!("seed {seed}: {kind}");
        let mut test = TestStore::in_directory(directory, cache());
        content.check(&test, &case).await;
        if seed.is_multiple_of(10) {
            eventually("rebuilt", || test.metrics.store_blobs.get() == 3);
            test = test.restart().await;
            content.check(&test, &format!("{case}, again")).await;
            assert!(test.store.is_listed(&content.repository, &content.layer));
        }
    }
}

/// As a backup that brings back the index alone does.
#[tokio::test]
async fn an_earlier_index_is_survived() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    test = test.restart().await;
    let earlier = tempfile::tempdir().unwrap();
    copy(&test.path("index"), &earlier.path().join("index"));
    let later = test.put_image(&content.layer, &[&content.layer, &content.layer]).await;
    test.clock.advance(DAY);
    test.store.set_tag(&content.repository, &tag("latest"), &later, test.clock.wall());
    let other: ImageName = format!("{}@{}", content.repository, content.image).parse().unwrap();
    test.store.pin(&other).await.unwrap().unwrap();
    test.store.close().await;

    fs::remove_dir_all(test.path("index")).unwrap();
    copy(&earlier.path().join("index"), &test.path("index"));
    test = test.restart().await;
    let tagged = test.store.tag(&content.repository, &tag("latest")).unwrap();
    assert_eq!(tagged.digest, later);
    assert!(test.store.manifest(&later).await.unwrap().is_some());
    assert!(test.store.is_pinned(&pinned()) && test.store.is_pinned(&other));
    assert!(test.read(&content.layer).await.is_some());
}

#[tokio::test]
async fn an_index_that_killed_its_reader_is_not_tried_again() {
    let test = TestStore::new();
    let content = Content::put(&test).await;
    test.store.close().await;
    for n in 1..3 {
        let directory = tempfile::tempdir().unwrap();
        copy(test.directory.path(), directory.path());
        fs::write(directory.path().join("index.opening"), b"").unwrap();
        fs::write(directory.path().join(format!("index.damaged-{n}")), b"").unwrap();
        let test = TestStore::in_directory(directory, cache());
        content.check(&test, "marker").await;
        assert!(!test.path("index.opening").exists());
        assert!(!test.path(&format!("index.damaged-{n}")).exists());
        assert!(test.path(&format!("index.damaged-{}", n + 1)).is_dir());
    }
}

#[tokio::test]
async fn a_damaged_index_json_is_set_aside_and_written_anew() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    let garbage: [&[u8]; 5] = [b"", b"{", b"[]", b"\xff\xfe", br#"{"manifests":7}"#];
    for garbage in garbage {
        test.store.close().await;
        fs::write(test.path("index.json"), garbage).unwrap();
        test = test.crash();
        content.check(&test, "index.json").await;
        assert_eq!(fs::read(test.path("index.json.damaged")).unwrap(), garbage);
        eventually("named again", || {
            let written = fs::read_to_string(test.path("index.json")).unwrap();
            written.contains("docker.io/library/busybox:latest")
        });
    }
}

#[tokio::test]
async fn what_other_tools_wrote_into_index_json_does_no_harm() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    test.store.close().await;
    let json = fs::read_to_string(test.path("index.json")).unwrap();
    let foreign = format!(r#""manifests":[7,{{"digest":"md5:1"}},{},"#, descriptor(&content.image));
    let json = json.replace(r#""manifests":["#, &foreign);
    fs::write(test.path("index.json"), json).unwrap();
    fs::remove_dir_all(test.path("index")).unwrap();
    test = test.crash();
    content.check(&test, "foreign entries").await;
}

#[tokio::test]
async fn without_any_index_files_are_found_in_the_background() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    test.store.close().await;
    fs::remove_dir_all(test.path("index")).unwrap();
    fs::remove_file(test.path("index.json")).unwrap();
    test = test.crash();
    eventually("all found", || test.metrics.store_blobs.get() == 3);
    eventually("manifests read", || {
        test.children(&content.index) == Some(vec![content.image.clone()])
            && test.children(&content.image).is_some()
    });
    assert_eq!(test.store.nesting_above(&content.layer), 0);
    assert_eq!(test.store.nesting_above(&content.image), 1);
}

#[tokio::test]
async fn rows_without_a_file_go() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    test.store.close().await;
    fs::remove_file(test.blob_path(&content.layer)).unwrap();
    fs::write(test.path("downloads/sha256-leftover"), b"x").unwrap();
    test = test.crash();
    eventually("the row is gone", || !test.store.has(&content.layer));
    assert_eq!(test.files("downloads"), 0);
    test = test.restart().await;
    assert!(!test.store.has(&content.layer));
    assert!(test.store.is_proved(&content.repository, &content.layer));
}

#[tokio::test]
async fn an_unclean_end_makes_index_json_be_written() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    test.store.close().await;
    assert_eq!(fs::read(test.path("lock")).unwrap(), b"");
    fs::write(test.path("lock"), b"4711\n").unwrap();
    let json = fs::read_to_string(test.path("index.json")).unwrap();
    let emptied = r#"{"schemaVersion":2,"manifests":[]}"#;
    fs::write(test.path("index.json"), emptied).unwrap();
    test = test.crash();
    content.check(&test, "unclean").await;
    let is_written = || fs::read_to_string(test.path("index.json")).unwrap() == json;
    eventually("index.json is written", is_written);
}

/// A process that was killed may hold sled's lock for a moment longer than ours.
#[tokio::test]
async fn a_lock_that_is_late_to_go_is_no_damage() {
    let mut test = TestStore::new();
    let content = Content::put(&test).await;
    test.store.close().await;
    let held = fs::File::open(test.path("index/db")).unwrap();
    let hold = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    eventually("sled lets go", || rustix::fs::flock(&held, hold).is_ok());
    let released = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    test = test.crash();
    released.join().unwrap();
    assert!(test.store.is_proved(&content.repository, &content.layer));
    assert!(!test.path("index.damaged-1").exists());
}

//! A disk that fails, loses its files, or refuses them for a while.

use std::{io, os::unix::fs::symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

impl TestStore {
    async fn cannot_be_written(&self) {
        eventually("trouble is found", || self.metrics.store_writable.get() == 0);
        assert!(self.store.trouble().is_some());
        let refused = self.store.create_blob(&sha256(b"new"), None).await;
        assert!(refused.is_err(), "{refused:?}");
    }

    fn recovers(&self) {
        eventually("the store works again", || self.metrics.store_writable.get() == 1);
        assert_eq!(self.store.trouble(), None);
    }

    /// As `rm -rf` does it; some of it may be there again at once.
    fn empty_directory(&self) {
        for entry in fs::read_dir(self.directory.path()).unwrap() {
            let path = entry.unwrap().path();
            eventually("it is removed", || {
                let remove = if path.is_dir() { fs::remove_dir_all } else { fs::remove_file };
                let removed = remove(path.as_path());
                removed.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
            });
        }
    }

    fn json(&self) -> String {
        fs::read_to_string(self.path("index.json")).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_found_out_and_used_again() {
    let test = TestStore::new();
    let digest = test.put(b"before").await;
    fs::remove_dir(test.path("downloads")).unwrap();
    fs::write(test.path("downloads"), b"no directory").unwrap();
    test.cannot_be_written().await;
    assert_eq!(test.read(&digest).await.unwrap(), "before");

    fs::remove_file(test.path("downloads")).unwrap();
    test.recovers();
    let after = test.put(b"after").await;
    assert_eq!(test.read(&after).await.unwrap(), "after");
}

#[tokio::test]
async fn a_deleted_data_directory_is_made_anew_and_remembers_nothing_that_is_gone() {
    let mut test = TestStore::new();
    let content = sha256(b"lost");
    test.put(b"lost").await;
    let tagged = test.put_index(&[]).await;
    let busybox = repository("docker.io/library/busybox");
    test.store.set_tag(&busybox, &tag("latest"), &tagged, SystemTime::now());
    test.store.prove_blob(&busybox, &content);
    for n in 0..500u32 {
        test.put(&n.to_le_bytes()).await;
    }
    test.empty_directory();
    eventually("everything is made anew", || {
        let made = ["blobs/sha256", "blobs/sha512", "downloads", "index", "oci-layout", "lock"];
        made.iter().all(|name| test.path(name).exists()) && test.json().contains("manifests")
    });
    eventually("no row is left without its file", || test.metrics.store_blobs.get() == 0);
    assert!(!test.store.has(&content));
    let second = Store::open(
        test.directory.path(),
        &test.cache,
        test.clock.clone(),
        Arc::clone(&test.metrics),
    );
    assert!(second.unwrap_err().to_string().contains("in use"), "it is locked again");

    let kept = test.put(b"kept").await;
    let image = test.put_image(&kept, &[&kept]).await;
    test.store.set_tag(&busybox, &tag("latest"), &image, SystemTime::now());
    test = test.restart().await;
    assert_eq!(test.store.tag(&busybox, &tag("latest")).unwrap().digest, image);
    assert!(test.store.is_listed(&busybox, &kept));
    assert!(test.store.is_proved(&busybox, &content), "what was known is in the new index");
}

#[tokio::test]
async fn deleted_blobs_are_forgotten_and_the_others_are_not() {
    let test = TestStore::new();
    for n in 0..300u32 {
        test.put(&n.to_le_bytes()).await;
    }
    let elsewhere = sha512(b"elsewhere");
    test.put_as(&elsewhere, b"elsewhere").await;
    fs::remove_dir_all(test.path("blobs/sha256")).unwrap();
    eventually("one is left", || test.metrics.store_blobs.get() == 1);
    assert!(test.store.has(&elsewhere));
    test.recovers();
    test.put(b"again").await;
}

fn sha512(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, content)
}

#[tokio::test]
async fn what_comes_back_is_found_again() {
    let test = TestStore::new();
    let digest = test.put(b"away for a while").await;
    fs::rename(test.path("blobs"), test.path("elsewhere")).unwrap();
    fs::write(test.path("blobs"), b"no directory").unwrap();
    test.cannot_be_written().await;
    fs::remove_file(test.path("blobs")).unwrap();
    fs::rename(test.path("elsewhere"), test.path("blobs")).unwrap();
    test.recovers();
    assert_eq!(test.read(&digest).await.unwrap(), "away for a while");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_damage() {
    let test = TestStore::new();
    let digest = test.put(b"content").await;
    let path = test.blob_path(&digest);
    fs::remove_file(&path).unwrap();
    symlink(&path, &path).unwrap();
    assert!(test.store.open_blob(&digest).await.is_err());
    assert!(test.store.has(&digest));
    assert_eq!(test.metrics.store_damaged_blobs.get(), 0);
    test.put(b"content").await;
    assert_eq!(test.read(&digest).await.unwrap(), "content", "a new one takes its place");
    assert_eq!(test.metrics.store_writable.get(), 1);
}

/// What could not be written at the end is put right by the next life.
#[tokio::test]
async fn an_end_at_which_not_everything_is_written_is_not_clean() {
    let mut test = TestStore::new();
    test.store.write_now().await.unwrap();
    let in_the_way = test.path("index.new");
    fs::create_dir(&in_the_way).unwrap();
    let (image, ..) = test.put_tagged("v1").await;
    test.store.close().await;
    assert_ne!(fs::read(test.path("lock")).unwrap(), b"", "as after a crash");
    assert!(!test.json().contains(&image.encoded()));
    fs::remove_dir(in_the_way).unwrap();
    test = test.crash();
    eventually("it is named", || test.json().contains(&image.encoded()));
    test.store.close().await;
    assert_eq!(fs::read(test.path("lock")).unwrap(), b"");
}

#[tokio::test]
async fn an_index_that_is_deleted_is_written_anew() {
    let mut test = TestStore::new();
    let blob = test.put(b"content").await;
    let busybox = repository("docker.io/library/busybox");
    test.store.prove_blob(&busybox, &blob);
    eventually("the index is written", || test.path("index/db").exists());
    fs::remove_dir_all(test.path("index")).unwrap();
    eventually("the index is written anew", || test.path("index/db").exists());
    test = test.restart().await;
    assert!(test.store.is_proved(&busybox, &blob));
}

/// Nothing says that blobs were lost with it, and a million of them are not listed for nothing.
#[tokio::test]
async fn a_deleted_layout_is_written_again_and_no_blob_looked_at() {
    let test = TestStore::new();
    test.store.looked_around().await;
    let unknown = sha256(b"unknown");
    fs::write(test.blob_path(&unknown), b"unknown").unwrap();
    fs::remove_file(test.path("index.json")).unwrap();
    fs::remove_file(test.path("oci-layout")).unwrap();
    eventually("both are there again", || {
        test.path("index.json").exists() && test.path("oci-layout").exists()
    });
    assert!(!test.store.has(&unknown));
}

/// Nobody will ever write to it.
#[tokio::test]
async fn a_pipe_in_the_place_of_a_blob_holds_up_nothing() {
    let test = TestStore::new();
    let kept = test.put(b"kept").await;
    test.store.close().await;
    let pipe = test.blob_path(&sha256(b"pipe"));
    mknodat(CWD, pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let test = test.restart().await;
    let looking = tokio::time::timeout(Duration::from_secs(10), test.store.looked_around());
    assert!(looking.await.is_ok());
    assert!(test.store.has(&kept));
}

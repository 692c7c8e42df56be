//! `larder ls` and `larder du`, with a daemon and without.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    FakeRegistry, Image, Index, TestMirror, Upstream,
    admin::over_tcp,
    binary::{Ended, run},
    mirror::{CONFIG, DATA_DIR},
    wait::until,
};

/// Runs a command on the data directory that the configuration names.
async fn larder(directory: &Path, arguments: &[&str]) -> String {
    let ended = run_on(directory, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.output
}

/// Elsewhere, for what is asked may run in this very runtime.
async fn run_on(directory: &Path, arguments: &[&str]) -> Ended {
    let config = directory.join(CONFIG).to_str().unwrap().to_owned();
    let mut all: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    all.extend(["--config".to_owned(), config]);
    let running = tokio::task::spawn_blocking(move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        run(&all, &[])
    });
    running.await.unwrap()
}

async fn ls(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = larder(directory, &[&["ls", "--json"], arguments].concat()).await;
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn names(directory: &Path, arguments: &[&str]) -> Vec<String> {
    let images = ls(directory, arguments).await.into_iter();
    images.map(|image| image["image"].as_str().unwrap().to_owned()).collect()
}

fn bytes(image: &Image) -> u64 {
    let blobs: usize = image.blobs().map(|blob| blob.len()).sum();
    (blobs + image.manifest.len()) as u64
}

/// A mirror with a small image, a large one, and of an index with three platforms the first.
async fn with_three_images() -> (FakeRegistry, TestMirror, [Image; 2], Index) {
    let registry = FakeRegistry::start().await;
    let small = Image::with_layers(1, vec![crate::support::random_bytes(1, 2000)]);
    let large = Image::random(2);
    let index = Index::of([3, 4, 5].map(Image::random).to_vec());
    registry.put_image("library/small", "1", &small);
    registry.put_image("team/large", "V2", &large);
    registry.put_index("library/multi", "latest", &index);
    let docker = Upstream::docker_io(&registry);
    let quay = Upstream::named("quay.io", &registry).set("aliases", vec!["registry.alias"]);
    let mirror = TestMirror::builder().upstream(docker).upstream(quay).start().await;
    mirror.pull("library/small", "1", &small).await;
    mirror.pull("quay.io/team/large", "V2", &large).await;
    mirror.manifest("library/multi", "latest").await;
    let platform = &index.images[0];
    mirror.pull("library/multi", &platform.digest().to_string(), platform).await;
    (registry, mirror, [small, large], index)
}

/// Every image is listed with its sizes and platforms, alike by the daemon and without it.
#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_with_and_without_a_daemon() {
    let (_registry, mirror, [small, large], index) = with_three_images().await;
    let data_dir = mirror.data_dir();
    let listed = ls(data_dir.parent().unwrap(), &[]).await;
    let names: Vec<&str> = listed.iter().map(|image| image["image"].as_str().unwrap()).collect();
    let expected =
        ["docker.io/library/multi:latest", "docker.io/library/small:1", "quay.io/team/large:V2"];
    assert_eq!(names, expected);
    let multi_bytes = bytes(&index.images[0]) + index.manifest.len() as u64;
    let sizes = [multi_bytes, bytes(&small), bytes(&large)];
    let digests = [index.digest(), small.digest(), large.digest()];
    for ((image, size), digest) in listed.iter().zip(sizes).zip(digests) {
        assert_eq!(image["bytes"], size, "{image}");
        assert_eq!(image["unique_bytes"], size, "{image}");
        assert_eq!(image["digest"], digest.to_string(), "{image}");
        assert!(image["checked"].is_string() && image["unused_seconds"].is_u64(), "{image}");
    }
    let platforms = |image: &Value| {
        let platforms = image["platforms"].as_array().unwrap().iter();
        platforms.map(|here| format!("{} {}", here["platform"], here["state"])).collect::<Vec<_>>()
    };
    let of_index = ["amd64\" \"complete\"", "arm64\" \"absent\"", "riscv64\" \"absent\""];
    assert_eq!(platforms(&listed[0]), of_index.map(|end| format!("\"linux/{end}")));
    assert_eq!(platforms(&listed[1]), ["\"linux/amd64\" \"complete\""]);
    assert_eq!((&listed[2]["registry"], &listed[2]["tag"]), (&"quay.io".into(), &"V2".into()));

    let directory = mirror.stop().await.into_file();
    let mut again = ls(directory.path(), &[]).await;
    for (image, before) in again.iter_mut().zip(&listed) {
        image["unused_seconds"] = before["unused_seconds"].clone();
    }
    assert_eq!(again, listed);
}

/// Every filter leaves out the others, and every order is one.
#[tokio::test(flavor = "multi_thread")]
async fn images_are_chosen_and_sorted() {
    let (_registry, mirror, _, index) = with_three_images().await;
    let data_dir = mirror.data_dir();
    let directory = data_dir.parent().unwrap();
    mirror.advance(std::time::Duration::from_secs(2 * 3600));
    mirror.manifest("library/small", "1").await;
    let other = &index.images[1];
    mirror.manifest("library/multi", &other.digest().to_string()).await;
    let (multi, small, large) =
        ("docker.io/library/multi:latest", "docker.io/library/small:1", "quay.io/team/large:V2");
    for (arguments, expected) in [
        (&["small"][..], &[small][..]),
        (&["small", "V2"], &[small, large]),
        (&["docker.io/*"], &[multi, small]),
        (&["*:V*"], &[large]),
        (&["docker.io/small"], &[small]),
        (&["index.docker.io/library/small:1"], &[small]),
        (&["registry.alias/team/large:V2"], &[large]),
        (&["registry.alias"], &[large]),
        (&["no such"], &[]),
        (&["--registry", "registry.alias"], &[large]),
        (&["--pinned"], &[]),
        (&["--registry", "quay.io"], &[large]),
        (&["--registry", "docker"], &[]),
        (&["--untagged"], &[]),
        (&["--unused-for", "1h"], &[multi, large]),
        (&["--larger-than", "40kB"], &[multi, large]),
        (&["--partial"], &[multi]),
        (&["--sort", "size"], &[multi, large, small]),
        (&["--sort", "unique", "--reverse"], &[small, large, multi]),
        (&["--sort", "name", "--reverse"], &[large, small, multi]),
        (&["--sort", "used", "--registry", "docker.io"], &[small, multi]),
    ] {
        assert_eq!(names(directory, arguments).await, expected, "{arguments:?}");
    }
    let mut by_age = names(directory, &["--sort", "added"]).await;
    assert_eq!(by_age.len(), 3);
    by_age.reverse();
    assert_eq!(names(directory, &["--sort", "added", "--reverse"]).await, by_age);
    for wrong in
        [&["ls", "--sort", "colour"][..], &["ls", "--unused-for", "soon"], &["du", "--by", "x"]]
    {
        assert_eq!(run_on(directory, wrong).await.code, Some(2), "{wrong:?}");
    }
}

/// What stays whatever happens is told, and by what; a pin holds what other tags of the repository mean too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_is_told() {
    let registry = FakeRegistry::start().await;
    let (one, two) = (Image::random(1), Image::random(2));
    for tag in ["1", "1.0"] {
        registry.put_image("library/x", tag, &one);
    }
    for tag in ["2", "ruled"] {
        registry.put_image("library/x", tag, &two);
    }
    let keys = [("match", "docker.io/library/x:ruled".into()), ("pin", true.into())];
    let rule: toml::Table = keys.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
    let docker = Upstream::docker_io(&registry);
    let mirror = TestMirror::builder().upstream(docker).set("cache.rule", vec![rule]).start().await;
    for (tag, image) in [("1", &one), ("1.0", &one), ("2", &two), ("ruled", &two)] {
        mirror.pull("library/x", tag, image).await;
    }
    let data_dir = mirror.data_dir();
    let directory = data_dir.parent().unwrap();
    let told = larder(directory, &["pin", "x:1", "--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["pinned_bytes"], bytes(&one), "{told}");
    assert!(told["max_size_bytes"].as_u64().unwrap() > bytes(&one), "{told}");
    for (image, by) in ls(directory, &[]).await.iter().zip(["command", "command", "", "rule"]) {
        assert_eq!(image["pinned"].as_str().unwrap_or_default(), by, "{image}");
    }
    let x = |tag: &str| format!("docker.io/library/x:{tag}");
    assert_eq!(names(directory, &["--pinned"]).await, ["1", "1.0", "ruled"].map(x));
    assert!(larder(directory, &["ls", "ruled"]).await.contains("  rule  "));
}

/// A cache that pins fill says so.
#[tokio::test(flavor = "multi_thread")]
async fn pins_that_leave_no_room_are_told() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    let stopped = mirror.stop().await.upstream(Upstream::docker_io(&registry));
    let directory = stopped.set("cache.max_size", "1KiB").into_file();
    let told = larder(directory.path(), &["pin", "x"]).await;
    assert!(told.contains("leaves no room for anything else: cache.max_size is 1.0 KiB"), "{told}");
}

/// Whoever wants no more of a list has enough of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_read_to_its_end_is_no_failure() {
    let (_registry, mirror, ..) = with_three_images().await;
    let config = mirror.stop().await.into_file();
    for arguments in [&["ls"][..], &["ls", "--json"], &["du"], &["sweep", "--dry-run"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(arguments).arg("--config").arg(config.path().join(CONFIG)).stdout(writer);
        let ended = command.output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
    }
}

/// The table is aligned, and names what is there in words.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_for_people() {
    let (_registry, mirror, ..) = with_three_images().await;
    let table = larder(mirror.data_dir().parent().unwrap(), &["ls"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    // In this column, numbers end below the end of its heading.
    let end = lines[0].find("UNUSED").unwrap() + "UNUSED".len();
    assert!(lines[1..].iter().all(|line| line[..end].ends_with('s')), "{table}");
    assert!(lines[1].starts_with("docker.io/library/multi:latest  "), "{table}");
    assert!(lines[1].ends_with("  linux/amd64, 2 not here"), "{table}");
}

/// Every field of an answer is in the documentation.
#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_documented() {
    let documented = include_str!("../../docs/api.md");
    let (_registry, mirror, ..) = with_three_images().await;
    let data_dir = mirror.data_dir();
    for command in
        ["ls", "du --by=repository", "pin small:1", "rm multi --dry-run", "sweep", "scrub"]
    {
        let arguments: Vec<&str> = command.split(' ').chain(["--json"]).collect();
        let ended = run_on(data_dir.parent().unwrap(), &arguments).await;
        let documents = serde_json::Deserializer::from_str(&ended.output).into_iter::<Value>();
        for document in documents.map_while(Result::ok) {
            for field in document.as_object().unwrap().keys() {
                assert!(documented.contains(&format!("`{field}`")), "{field} of {command}");
            }
        }
    }
}

fn bytes_below(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.len();
    }
    path.read_dir().unwrap().map(|entry| bytes_below(&entry.unwrap().path())).sum()
}

/// The parts add up to the total, and the total to the files that are there.
#[tokio::test(flavor = "multi_thread")]
async fn usage_adds_up_to_the_files() {
    let (_registry, mirror, [small, large], index) = with_three_images().await;
    let data_dir = mirror.data_dir();
    let directory = data_dir.parent().unwrap();
    let mut usage = Value::Null;
    // The index may be written meanwhile.
    until("the total to be that of the files", async || {
        let before = bytes_below(&data_dir);
        usage = serde_json::from_str(&larder(directory, &["du", "--json"]).await).unwrap();
        usage["total_bytes"] == before && before == bytes_below(&data_dir)
    })
    .await;
    let number = |key: &str| usage[key].as_u64().unwrap();
    let blobs = usage["held"]["bytes"].as_u64().unwrap();
    assert_eq!(blobs, bytes_below(&data_dir.join("blobs")));
    let others = ["downloads", "quarantine", "index", "damaged_indexes", "other"];
    let others: u64 = others.iter().map(|part| number(&format!("{part}_bytes"))).sum();
    assert_eq!(blobs + others, number("total_bytes"));
    assert_eq!(usage["unused"]["bytes"], 0);
    assert_eq!(usage["shared"]["bytes"], 0);
    let docker = bytes(&small) + bytes(&index.images[0]) + index.manifest.len() as u64;
    let users = usage["users"].as_array().unwrap();
    let users: Vec<_> = users.iter().map(|user| (&user["registry"], &user["bytes"])).collect();
    assert_eq!(
        users,
        [(&"docker.io".into(), &docker.into()), (&"quay.io".into(), &bytes(&large).into())]
    );

    let by_name = larder(directory, &["du", "--by", "repository"]).await;
    assert!(by_name.contains("\ndocker.io/library/multi"), "{by_name}");
    let stopped = mirror.stop().await.into_file();
    let text = larder(stopped.path(), &["du"]).await;
    assert!(text.contains("\nquay.io"), "{text}");
}

/// Names of images, some of them private, are not for everyone who reaches the admin listener.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_images_are_not_public() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "t0ken").unwrap();
    let mirror =
        TestMirror::builder().set("admin.token_file", file.to_str().unwrap()).start().await;
    let admin = mirror.admin().address();
    for page in ["GET /api/v1/images", "GET /api/v1/usage"] {
        assert_eq!(over_tcp(admin, &[page], "").await.status, 401, "{page}");
        let token = "authorization: Bearer t0ken";
        assert_eq!(over_tcp(admin, &[page, token], "").await.status, 200, "{page}");
        let wrong = format!("{page}?unknown=1");
        assert_eq!(over_tcp(admin, &[&wrong, token], "").await.status, 400, "{page}");
    }
}

/// Listing makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_to_list_nothing() {
    let stopped = TestMirror::builder();
    let data_dir = stopped.data_dir();
    let directory = stopped.into_file();
    for command in ["ls", "du"] {
        let ended = run_on(directory.path(), &[command]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.output.contains("no such directory"), "{ended:?}");
    }
    assert!(!data_dir.exists());
    assert_eq!(data_dir, directory.path().join(DATA_DIR));
}

//! Our account is not everybody's: what only Larder's credentials may see at a registry, others get
//! only where `share_private` has it.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use toml::{Table, Value};

use crate::support::{
    Auth, FakeRegistry, Fault, Image, Mode, TestMirror, Upstream,
    mirror::{blob_url, manifest_path},
    sha256,
    wait::until,
};

/// What strangers may not see.
const PRIVATE: &[&str] = &["team/app", "team/deep/tool", "other/app"];

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A registry with one image in every repository, where `anna` may see all, and strangers all but
/// [`PRIVATE`].
struct Hub {
    registry: FakeRegistry,
    image: Image,
}

impl Hub {
    async fn start() -> Hub {
        let auth = Auth::PasswordTokenFor(PRIVATE, "anna", "secret");
        let registry = FakeRegistry::builder().auth(auth).start().await;
        let image = Image::random(1);
        for repository in PRIVATE.iter().chain(&["library/x", "library/y"]) {
            registry.put_image(repository, "latest", &image);
        }
        Hub { registry, image }
    }

    /// This registry as docker.io, with the account, and nothing said of sharing.
    fn upstream(&self) -> Upstream {
        self.stranger().credentials("anna", "secret")
    }

    /// This registry as docker.io, with no account.
    fn stranger(&self) -> Upstream {
        Upstream::docker_io(&self.registry).unset("share_private")
    }

    async fn mirror(&self) -> TestMirror {
        TestMirror::builder().upstream(self.upstream()).start().await
    }

    /// Lets strangers see only what is not among these, from now on.
    fn hide(&self, private: &'static [&'static str]) {
        self.registry.set_auth(Auth::PasswordTokenFor(private, "anna", "secret"));
        self.registry.expire_tokens();
    }

    /// Every kind of question that a client may ask about a repository, with the code of its 404.
    fn questions(&self, repository: &str) -> [(&'static str, String, &'static str); 7] {
        let (manifest, blob) = (self.image.digest().to_string(), sha256(&self.image.layers[0]));
        [
            ("GET", manifest_path(repository, "latest"), "MANIFEST_UNKNOWN"),
            ("HEAD", manifest_path(repository, "latest"), ""),
            ("GET", manifest_path(repository, &manifest), "MANIFEST_UNKNOWN"),
            ("GET", blob_url(repository, &blob), "BLOB_UNKNOWN"),
            ("HEAD", blob_url(repository, &blob), ""),
            ("GET", format!("/v2/{repository}/tags/list"), "NAME_UNKNOWN"),
            ("GET", format!("/v2/{repository}/referrers/{manifest}"), "UNSUPPORTED"),
        ]
    }

    /// Asserts that every question about a repository is answered with this status.
    async fn assert_all(&self, mirror: &TestMirror, repository: &str, status: u16) {
        for (method, path, _) in self.questions(repository) {
            let answer = mirror.request(method, &path, &[]).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
    }

    fn strangers_requests(&self) -> usize {
        self.registry.asked_by_strangers().len()
    }
}

/// Repositories in `/v2/_catalog`.
async fn catalog(mirror: &TestMirror) -> String {
    let body = mirror.get("/v2/_catalog").await.bytes().await;
    String::from_utf8(body.to_vec()).unwrap()
}

/// Whatever is asked first, it decides, and with it the question is settled for all that follow.
#[tokio::test(flavor = "multi_thread")]
async fn one_check_decides_whatever_is_asked_first() {
    let hub = Hub::start().await;
    for number in 0..7 {
        let mirror = hub.mirror().await;
        let before = hub.strangers_requests();
        let (method, path, _) = &hub.questions("library/x")[number];
        assert_eq!(mirror.request(method, path, &[]).await.status, 200, "{method} {path}");
        assert_eq!(hub.strangers_requests() - before, 1, "{method} {path}");
        hub.assert_all(&mirror, "library/x", 200).await;
        assert_eq!(hub.strangers_requests() - before, 1, "{method} {path}");

        let (method, path, code) = &hub.questions("team/app")[number];
        let answer = mirror.request(method, path, &[]).await;
        assert_eq!(answer.status, 404, "{method} {path}");
        if method == &"GET" {
            let (said, message) = answer.error().await;
            assert_eq!(said, *code);
            assert!(message.contains("share_private = [\"team/app\"]"), "{message}");
            assert!(message.contains("[[upstream]] of docker.io"), "{message}");
        }
        let before = hub.strangers_requests();
        hub.assert_all(&mirror, "team/app", 404).await;
        assert_eq!(hub.strangers_requests(), before, "{method} {path}");
    }
}

/// Of what is known to be private nothing is fetched. A blob is checked before it is asked for, so
/// that not even the first question begins to.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_private_is_not_downloaded() {
    let hub = Hub::start().await;
    let mirror = hub.mirror().await;
    let layer = blob_url("team/app", &sha256(&hub.image.layers[0]));
    assert_eq!(mirror.get(&layer).await.status, 404);
    let asked = hub.registry.requests().len();
    // Each asker's challenge, token and question, the GET that a refused HEAD is confirmed by, and
    // for a stranger's refused token another.
    assert!(asked <= 10, "{:#?}", hub.registry.requests());
    hub.assert_all(&mirror, "team/app", 404).await;
    assert_eq!(hub.registry.requests().len(), asked);
    let requests = hub.registry.requests();
    let mut gets = requests.iter().filter(|asked| asked.method == "GET" && asked.path == layer);
    assert!(gets.all(|asked| asked.header("range") == Some("bytes=0-0")), "{requests:#?}");
}

/// The check of a tag is a HEAD, which Docker Hub does not count as a pull; all who come at once
/// share it, and of a private image nothing is served to any of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_costs_one_check() {
    let hub = Hub::start().await;
    let mirror = hub.mirror().await;
    for (repository, status, checks) in [("library/x", 200, 1), ("team/app", 404, 2)] {
        let path = manifest_path(repository, "latest");
        hub.registry.on("HEAD", &path, Fault::delay(Duration::from_millis(100)));
        let before = hub.strangers_requests();
        let pulls = join_all((0..50).map(|_| mirror.get(&path))).await;
        assert!(pulls.iter().all(|answer| answer.status == status), "{pulls:?}");
        // The GET that confirms a refusal is refused as well, and so is no pull either.
        let mut asked = hub.registry.asked_by_strangers().split_off(before);
        asked.dedup();
        assert_eq!(asked, [format!("HEAD {path}"), format!("GET {path}")][..checks]);
    }
    assert!(catalog(&mirror).await.contains(r#"["library/x"]"#), "{}", catalog(&mirror).await);
}

/// Who has no account there, or gives it nothing to do with a repository, pays for no check.
#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_nobody_is_checked() {
    let hub = Hub::start().await;
    let keys = [("prefix", "team"), ("username", "anna"), ("password", "secret")];
    let below_team: Value =
        Table::from_iter(keys.map(|(key, value)| (key.to_owned(), value.into()))).into();
    let upstreams = [hub.stranger(), hub.stranger().set("credentials", vec![below_team])];
    for upstream in upstreams {
        let before = hub.registry.count("GET", "/v2/library/x/manifests/latest");
        let mirror = TestMirror::builder().upstream(upstream).start().await;
        mirror.pull("library/x", "latest", &hub.image).await;
        let gets = hub.registry.count("GET", "/v2/library/x/manifests/latest") - before;
        // One without the token, one with it.
        assert_eq!(gets, 2);
        hub.assert_all(&mirror, "team/app", 404).await;
    }
}

/// What `share_private` has is served, and nobody is asked about it.
#[tokio::test(flavor = "multi_thread")]
async fn share_private_has_globs() {
    let hub = Hub::start().await;
    let upstream = hub.upstream().set("share_private", vec!["team/*", "nothing"]);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    hub.assert_all(&mirror, "team/app", 200).await;
    assert_eq!(hub.strangers_requests(), 0);
    hub.assert_all(&mirror, "team/deep/tool", 404).await;
    hub.assert_all(&mirror, "other/app", 404).await;
    // What is at hand for one repository is not for another.
    assert!(mirror.has_blob(&sha256(&hub.image.layers[0])));
    assert!(catalog(&mirror).await.contains(r#"["team/app"]"#), "{}", catalog(&mirror).await);
}

/// Whoever adds a registry shares it, unless told which part.
#[tokio::test(flavor = "multi_thread")]
async fn an_added_registry_is_shared_by_default() {
    let hub = Hub::start().await;
    let corp = || Upstream::named("corp.test", &hub.registry).credentials("anna", "secret");
    let upstream = corp().unset("share_private");
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    hub.assert_all(&mirror, "corp.test/team/app", 200).await;
    assert_eq!(hub.strangers_requests(), 0);

    let upstream = corp().set("share_private", vec!["other/**"]);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    hub.assert_all(&mirror, "corp.test/team/app", 404).await;
    hub.assert_all(&mirror, "corp.test/other/app", 200).await;
    hub.assert_all(&mirror, "corp.test/library/x", 200).await;
}

/// A registry that gives strangers no token at all for what they may not see.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_a_refusal() {
    let accounts = &[("team/app", "anna", "secret")];
    let auth = Auth::PasswordTokenOf(accounts);
    let registry = FakeRegistry::builder().auth(auth).start().await;
    registry.put_image("team/app", "latest", &Image::random(1));
    let upstream = Upstream::named("ghcr.io", &registry).credentials("anna", "secret");
    let mirror = TestMirror::builder().upstream(upstream.unset("share_private")).start().await;
    let answer = mirror.get(&manifest_path("ghcr.io/team/app", "latest")).await;
    let (code, message) = answer.error().await;
    assert_eq!(code, "MANIFEST_UNKNOWN");
    assert!(message.contains("private upstream"), "{message}");
}

/// That a repository is public holds for a day, that it is private for ten minutes: then upstream is
/// asked once more, and everything follows what it says, cached or not.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_may_change_its_mind() {
    let hub = Hub::start().await;
    let mirror = hub.mirror().await;
    mirror.pull("library/x", "latest", &hub.image).await;
    assert_eq!(hub.strangers_requests(), 1);

    hub.hide(&["library/x"]);
    mirror.advance(DAY - MINUTE);
    hub.assert_all(&mirror, "library/x", 200).await;
    assert_eq!(hub.strangers_requests(), 1);
    mirror.advance(2 * MINUTE);
    hub.assert_all(&mirror, "library/x", 404).await;
    assert!(!catalog(&mirror).await.contains("library/x"));

    hub.hide(&[]);
    mirror.advance(9 * MINUTE);
    hub.assert_all(&mirror, "library/x", 404).await;
    mirror.advance(2 * MINUTE);
    hub.assert_all(&mirror, "library/x", 200).await;
    assert!(catalog(&mirror).await.contains("library/x"));
}

/// What upstream said is known after a restart, and counts while it says nothing, however old it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_answer_counts_while_there_is_no_new_one() {
    let hub = Hub::start().await;
    let shared = hub.upstream().set("share_private", "**");
    let mirror = TestMirror::builder().upstream(shared).start().await;
    mirror.pull("team/app", "latest", &hub.image).await;
    let mirror = mirror.stop().await.upstream(hub.upstream()).start().await;
    mirror.pull("library/x", "latest", &hub.image).await;
    hub.assert_all(&mirror, "team/app", 404).await;
    hub.registry.set_mode(Mode::Down).await;
    let builder = mirror.stop().await.upstream(hub.upstream());
    let mirror = builder.wall_jumped(30 * DAY).start().await;
    for (repository, status) in [("library/x", 200), ("team/app", 404)] {
        let answer = mirror.get(&manifest_path(repository, "latest")).await;
        assert_eq!(answer.status, status, "{repository}");
        for blob in hub.image.blobs() {
            let answer = mirror.get(&blob_url(repository, &sha256(blob))).await;
            assert_eq!(answer.status, status, "{repository}");
        }
    }
    assert!(catalog(&mirror).await.contains(r#"["library/x"]"#), "{}", catalog(&mirror).await);
}

/// Where upstream never said who may see what is here, it has to be asked; until it answers, its
/// outage is the answer.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_nothing_is_served() {
    let hub = Hub::start().await;
    let mirror = hub.mirror().await;
    mirror.pull("library/x", "latest", &hub.image).await;
    let builder = mirror.stop().await.upstream(hub.upstream());
    fs::remove_dir_all(builder.data_dir().join("index")).unwrap();
    hub.registry.set_mode(Mode::Down).await;
    let mirror = builder.start().await;
    let digest = hub.image.digest().to_string();
    let layer = blob_url("library/x", &sha256(&hub.image.layers[0]));
    assert_eq!(mirror.get(&manifest_path("library/x", "latest")).await.status, 502);
    assert_eq!(mirror.get(&manifest_path("library/x", &digest)).await.status, 502);
    assert_eq!(mirror.get(&layer).await.status, 429);
    assert!(!catalog(&mirror).await.contains("library/x"));

    hub.registry.set_mode(Mode::Up).await;
    let before = hub.strangers_requests();
    let tag = manifest_path("library/x", "latest");
    until("upstream to be tried again", async || mirror.get(&tag).await.status == 200).await;
    hub.assert_all(&mirror, "library/x", 200).await;
    assert_eq!(hub.strangers_requests() - before, 1);
}

/// Nor does anybody wait for long who has an old answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_silent_is_not_waited_for() {
    let hub = Hub::start().await;
    let mirror = TestMirror::builder()
        .upstream(hub.upstream())
        .set("cache.check_timeout", "100ms")
        .start()
        .await;
    mirror.pull("library/x", "latest", &hub.image).await;
    mirror.advance(2 * DAY);
    hub.registry.set_mode(Mode::BlackHole).await;
    let asked = Instant::now();
    for blob in hub.image.blobs() {
        mirror.pull_blob("library/x", &sha256(blob)).await;
    }
    // Upstream may be silent for 10 seconds before that is an outage by itself.
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
}

/// That strangers are limited is the answer only where nothing is known, and no limit on our account.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_strangers_does_not_stop_us() {
    let hub = Hub::start().await;
    let mirror = hub.mirror().await;
    mirror.pull("library/x", "latest", &hub.image).await;
    mirror.advance(2 * DAY);
    // The check comes first, before a blob is asked for.
    let layer = blob_url("library/y", &sha256(&hub.image.layers[0]));
    let limited = Fault::status(429).header("retry-after", "3600");
    hub.registry.once("HEAD", &layer, limited.clone());
    let answer = mirror.get(&layer).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.error().await.0, "TOOMANYREQUESTS");
    let before = hub.registry.requests().len();
    assert_eq!(mirror.get(&layer).await.status, 429);
    assert_eq!(hub.registry.requests().len(), before);

    let known = blob_url("library/x", &sha256(&hub.image.layers[0]));
    hub.registry.once("HEAD", &known, limited);
    assert_eq!(mirror.get(&known).await.status, 200);
    let fresh = mirror.get(&manifest_path("library/x", "latest")).await;
    assert_eq!((fresh.status, fresh.header("warning")), (200, None));
    mirror.advance(Duration::from_secs(11));
    assert_eq!(mirror.get(&layer).await.status, 200);
}

/// A tag that nobody has says nothing of its repository.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_private() {
    let hub = Hub::start().await;
    let mirror = hub.mirror().await;
    let answer = mirror.get(&manifest_path("library/x", "v9")).await;
    assert_eq!(answer.status, 404);
    let (_, message) = answer.error().await;
    assert!(!message.contains("private"), "{message}");
    until("the check", async || hub.strangers_requests() == 1).await;
    mirror.get(&manifest_path("library/x", "v9")).await;
    mirror.pull("library/x", "latest", &hub.image).await;
    let heads = ["v9", "latest"].map(|tag| format!("HEAD {}", manifest_path("library/x", tag)));
    assert_eq!(hub.registry.asked_by_strangers(), heads, "absence is remembered");

    // Nor is what was here and has gone there.
    hub.registry.delete_tag("library/x", "latest");
    mirror.advance(2 * DAY);
    mirror.get(&manifest_path("library/x", "latest")).await;
    let layer = blob_url("library/x", &sha256(&hub.image.layers[0]));
    assert_eq!(mirror.get(&layer).await.status, 200);
}

/// What came with credentials stays theirs when they are taken away.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_private_stays_so_without_the_account() {
    let hub = Hub::start().await;
    let shared = hub.upstream().set("share_private", "**");
    let mirror = TestMirror::builder().upstream(shared).start().await;
    mirror.pull("team/app", "latest", &hub.image).await;
    let mirror = mirror.stop().await.upstream(hub.upstream()).start().await;
    hub.assert_all(&mirror, "team/app", 404).await;

    let mirror = mirror.stop().await.upstream(hub.stranger()).start().await;
    mirror.pull("library/x", "latest", &hub.image).await;
    hub.assert_all(&mirror, "team/app", 404).await;
    mirror.advance(11 * MINUTE);
    hub.assert_all(&mirror, "team/app", 404).await;
    hub.hide(&[]);
    mirror.advance(MINUTE);
    hub.assert_all(&mirror, "team/app", 200).await;
}

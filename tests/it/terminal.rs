//! Commands on a terminal, and away from one: who is asked, what an answer does, what is drawn.

use bytes::Bytes;

use crate::support::{
    FakeRegistry, Image, TestMirror,
    binary::run,
    mirror::CONFIG,
    sha256,
    terminal::{END_OF_INPUT, Terminal},
};

/// What moves the cursor and clears lines begins with it (ECMA-48, CSI).
const CONTROL: &str = "\x1b[";

/// Only a bar tells how fast it goes.
const SPEED: &str = "B/s";

/// A mirror that holds an image, and the configuration to be given to commands.
struct Setting {
    _registry: FakeRegistry,
    mirror: TestMirror,
    image: Image,
    config: String,
}

impl Setting {
    async fn start() -> Setting {
        let registry = FakeRegistry::start().await;
        let image = Image::random(1);
        registry.put_image("library/x", "latest", &image);
        let mirror = TestMirror::of(&registry).await;
        mirror.pull("library/x", "latest", &image).await;
        let config = mirror.data_dir().with_file_name(CONFIG);
        let config = config.into_os_string().into_string().unwrap();
        Setting { _registry: registry, mirror, image, config }
    }

    fn on_terminal(&self, command: &[&str]) -> Terminal {
        Terminal::begin(&self.arguments(command))
    }

    fn arguments<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        [command, &["--config", &self.config]].concat()
    }

    fn holds_image(&self) -> bool {
        let has = |blob: &Bytes| self.mirror.has_blob(&sha256(blob));
        self.image.blobs().chain([&self.image.manifest]).all(has)
    }
}

/// Only a yes is a yes; whatever else is said, and silence, change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_asked_for_on_a_terminal() {
    let setting = Setting::start().await;
    for answer in ["n\n", "\n", "yesterday\n", END_OF_INPUT] {
        let mut terminal = setting.on_terminal(&["rm", "x"]);
        terminal.wait_for("Remove 1 image, ");
        terminal.wait_for("? [y/N] ");
        terminal.type_in(answer);
        let ended = terminal.end();
        assert_eq!(ended.code, Some(1), "{answer:?}: {ended:?}");
        assert!(ended.output.contains("nothing was changed"), "{answer:?}: {ended:?}");
        assert!(ended.output.contains("  docker.io/library/x:latest"), "{ended:?}");
        assert!(setting.holds_image(), "{answer:?}");
    }
    for answer in ["y\n", "YES\n"] {
        setting.mirror.pull("library/x", "latest", &setting.image).await;
        let mut terminal = setting.on_terminal(&["rm", "x"]);
        terminal.wait_for("? [y/N] ");
        terminal.type_in(answer);
        let ended = terminal.end();
        assert_eq!(ended.code, Some(0), "{answer:?}: {ended:?}");
        assert!(ended.output.contains("removed docker.io/library/x:latest"), "{ended:?}");
        setting.mirror.wait_until_gone(&setting.image.digest()).await;
    }
}

/// What destroys nothing does not ask, nor does what has nothing to destroy.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_asked_for() {
    let setting = Setting::start().await;
    for command in [&["rm", "x", "--dry-run"][..], &["rm", "x", "--yes", "--dry-run"], &["sweep"]] {
        let ended = setting.on_terminal(command).end();
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
        assert!(!ended.output.contains("[y/N]"), "{command:?}: {ended:?}");
        assert!(setting.holds_image(), "{command:?}");
    }
    let ended = setting.on_terminal(&["rm", "x", "--yes"]).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("[y/N]"), "{ended:?}");
    setting.mirror.wait_until_gone(&setting.image.digest()).await;
}

/// A scrub draws a bar that makes way for its last line; in a pipe there are lines and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_draws_its_progress_on_a_terminal_only() {
    let setting = Setting::start().await;
    let drawn = setting.on_terminal(&["scrub"]).end();
    assert_eq!(drawn.code, Some(0), "{drawn:?}");
    assert!(drawn.output.contains(CONTROL), "{drawn:?}");
    assert!(drawn.output.contains(SPEED), "{drawn:?}");
    let last = drawn.output.rsplit(CONTROL).next().unwrap();
    assert!(last.contains("4 blobs of ") && !last.contains(SPEED), "it is gone: {drawn:?}");

    let piped = run(&setting.arguments(&["scrub"]), &[]);
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert!(!piped.output.contains(['\x1b', '\r']), "{piped:?}");
    assert!(piped.output.starts_with("4 blobs of "), "{piped:?}");
    assert_eq!(piped.output.lines().count(), 1, "{piped:?}");
}

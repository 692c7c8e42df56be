//! A real engine that pulls an image through a long, narrow line.

use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "image",
    title: "A cold image over a long line",
    about: "`skopeo copy` of an image of eight layers of 64 MiB, nothing of it cached; between the \
            cache, or skopeo itself, and upstream are 20 ms each way and 50 MB/s a connection. \
            skopeo takes six layers at a time and verifies every digest. The same pull differs by \
            2 %, and so much is left to the goal. `larder-streams` has \
            `download.streams = 4`; `larder-prefetch` may fetch the last two layers beside the \
            first six (`download.max_concurrent = 12`, `max_connections = 32`).",
    rivals: &[
        Rival::Larder,
        Rival::LarderStreams,
        Rival::LarderPrefetch,
        Rival::Nginx,
        Rival::Direct,
    ],
    once: &[Rival::Distribution, Rival::Drayage],
    repeats: 1,
    absent: &[],
    measure,
};

const TIME: Measure =
    Measure::new("pulled after", "s").at_most_direct(1.02).prefetch_below_direct();

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Relay)?;
    let pulled = bench.scratch();
    let began = Instant::now();
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"])
        // Else it compresses the layers.
        .arg("--preserve-digests")
        .arg(format!("docker://{}", bench.contents.image().reference(site.address)))
        .arg(format!("oci:{}:pulled", pulled.display()))
        .stdin(Stdio::null())
        .output()?;
    let time = began.elapsed();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    fs::remove_dir_all(pulled)?;
    turn.found(&TIME, time.as_secs_f64());
    Ok(())
}

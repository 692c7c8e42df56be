//! Memory of a server that nobody asks.

use std::{thread, time::Duration};

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "idle",
    title: "Memory at rest",
    about: "What all processes of a server have resident together a second after its start with an \
            empty cache. What they share counts for each.",
    rivals: &[Rival::Larder],
    once: &[Rival::Nginx, Rival::NginxThreads, Rival::Distribution, Rival::Drayage],
    repeats: 1,
    absent: &[],
    measure,
};

const MEMORY: Measure = Measure::new("resident", "MiB").at_most(25.0);

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let site = turn.bench.start(turn.rival, Speech::Http, Line::Unlimited)?;
    thread::sleep(Duration::from_secs(1));
    let server = site.server.as_ref().ok_or("nothing was started")?;
    turn.found(&MEMORY, server.resident_memory()? as f64 / f64::from(1 << 20));
    Ok(())
}

//! The tools that comparing Larder with its rivals needs: a client that is never the limit, and
//! an upstream, a slow line and content that are the same in every run.
//!
//! `get`, `head` and `nodes` ask a server and print one line of JSON. They are one engine: a
//! [`workload`] of requests made ahead, [`run`] by a few threads, each of which waits on many
//! [`connection`]s; what an answer's bytes mean is [`http1`]'s or [`http2`]'s business, [`tls`]
//! opens them first; every thread keeps a [`tally`], and the [`report`] tells the sum beside what
//! the servers' [`processes`] used meanwhile. [`data`] makes a registry's content, [`upstream`]
//! serves it, [`relay`] makes the way to it long and narrow.

mod connection;
mod contents;
mod data;
mod exchange;
mod histogram;
mod http1;
mod http2;
mod nodes;
mod options;
mod pace;
mod processes;
mod relay;
mod report;
mod run;
mod tally;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod worker;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

use crate::options::{Command, Options};

/// What any step may fail with, for the person who reads it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Get(ask) => run::ask(workload::Method::Get, &ask),
        Command::Head(ask) => run::ask(workload::Method::Head, &ask),
        Command::Nodes(nodes) => nodes::run(&nodes),
        Command::Upstream(upstream) => upstream::run(&upstream),
        Command::Relay(relay) => relay::run(&relay),
        Command::Data(data) => data::make(&data),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}

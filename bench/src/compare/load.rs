//! The tools of `load`: each call is a process of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;

use crate::{Failure, bench::Site};

/// Without it docker-registry denies having OCI manifests.
const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json";

/// The program.
pub struct Load {
    pub program: PathBuf,
}

/// A call that asks a server.
pub struct Ask(Command);

/// A call that is under way.
pub struct Asking(Child);

/// What a call found.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub bytes: u64,
    pub seconds: f64,
    pub mb_per_second: f64,
    pub requests_per_second: f64,
    pub errors: u64,
    pub faults: BTreeMap<String, u64>,
    pub statuses: BTreeMap<u16, u64>,
    pub first_byte_ms: Option<Percentiles>,
    pub answer_ms: Option<Percentiles>,
    pub manifest_hit_ms: Option<Percentiles>,
    pub server: Option<Usage>,
}

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

/// What the server used meanwhile.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Usage {
    pub cpu_seconds_per_gb: f64,
    pub cpu_micros_per_request: f64,
    pub peak_rss_mib: f64,
}

impl Load {
    /// Makes content in a directory.
    pub fn data(&self, root: &Path, arguments: &[&str]) -> Result<(), Failure> {
        let made = Command::new(&self.program)
            .args(["data", "--root"])
            .arg(root)
            .args(arguments)
            .stdout(Stdio::null())
            .status()?;
        made.success().then_some(()).ok_or_else(|| "no content was made".into())
    }

    /// GETs of these.
    pub fn get(&self, site: &Site, paths: &[String]) -> Ask {
        self.ask("get", site, paths.iter().map(|path| site.url(path))).with("--header", ACCEPT)
    }

    /// HEADs of this.
    pub fn head(&self, site: &Site, path: &str) -> Ask {
        self.ask("head", site, [site.url(path)]).with("--header", ACCEPT)
    }

    /// Many nodes that pull all small images of a root.
    pub fn nodes(&self, site: &Site, root: &Path) -> Ask {
        self.ask("nodes", site, [site.url("")]).with("--root", root.display())
    }

    fn ask(&self, what: &str, site: &Site, of: impl IntoIterator<Item = String>) -> Ask {
        let mut command = Command::new(&self.program);
        command.arg(what).args(of);
        if let Some(certificate) = &site.trust {
            command.arg("--ca").arg(certificate);
        }
        if let Some(server) = &site.server {
            command.args(["--pid", &server.process().to_string()]);
        }
        Ask(command)
    }
}

impl Ask {
    /// Connections; one unless told.
    pub fn connections(self, count: u32) -> Ask {
        self.with("--connections", count)
    }

    /// For so long.
    pub fn during(self, time: Duration) -> Ask {
        self.with("--duration", time.as_secs_f64())
    }

    /// So many requests over all connections.
    pub fn requests(self, count: usize) -> Ask {
        self.with("--requests", count)
    }

    /// So many requests on each connection.
    pub fn each(self, count: u32) -> Ask {
        self.with("--each", count)
    }

    /// By HTTP/2.
    pub fn http2(mut self) -> Ask {
        self.0.arg("--http2");
        self
    }

    /// Every body is hashed and compared with its digest.
    pub fn hashed(mut self) -> Ask {
        self.0.arg("--sha256");
        self
    }

    /// Runs it. An answer that is not good is an error.
    pub fn run(self) -> Result<Report, Failure> {
        self.start()?.finish()
    }

    /// Starts it.
    pub fn start(mut self) -> Result<Asking, Failure> {
        Ok(Asking(self.0.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    fn with(mut self, option: &str, value: impl ToString) -> Ask {
        self.0.arg(option).arg(value.to_string());
        self
    }
}

impl Asking {
    /// Waits for it.
    pub fn finish(self) -> Result<Report, Failure> {
        let output = self.0.wait_with_output()?;
        let report: Report = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the load client said nothing of use: {error}"))?;
        if report.errors > 0 {
            let Report { errors, faults, statuses, .. } = report;
            return Err(format!("{errors} bad answers: {faults:?}, statuses {statuses:?}").into());
        }
        Ok(report)
    }
}

impl Report {
    /// What the server used. An error for the direct way, which has none.
    pub fn usage(&self) -> Result<Usage, Failure> {
        self.server.ok_or_else(|| "there is no server to watch".into())
    }
}

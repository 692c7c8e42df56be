//! What is measured of the daemon from outside.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Failure,
    client::{self, Connection},
    figures::{Figures, make_cold, mebibytes, memory, seconds},
    images::{Images, REGISTRIES},
};

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `larder serve`, killed when dropped.
struct Daemon {
    process: Child,
    began: Instant,
    registry: SocketAddr,
    admin: SocketAddr,
}

/// Starts to ready: after a clean end with a warm and a cold page cache, and after a kill.
pub fn starts(images: &Images, larder: &str, data_dir: &Path) -> Result<Figures, Failure> {
    eprintln!("== starts");
    let mut figures = Figures::default();
    let daemon = Daemon::start(larder, data_dir, "10m")?;
    daemon.figures("start, warm", images, &mut figures)?;
    daemon.stop(Signal::TERM)?;

    for path in ["index", "index.json"] {
        make_cold(&data_dir.join(path))?;
    }
    let daemon = Daemon::start(larder, data_dir, "10m")?;
    daemon.figures("start, cold", images, &mut figures)?;
    daemon.stop(Signal::KILL)?;

    let daemon = Daemon::start(larder, data_dir, "10m")?;
    daemon.figures("start after a kill", images, &mut figures)?;
    let began = Instant::now();
    daemon.stop(Signal::TERM)?;
    figures.add("stop", seconds(began.elapsed()));
    Ok(figures)
}

/// Manifests by tag over connections that stay open, without and with sweeps back to back.
pub fn look_ups(images: &Images, larder: &str, data_dir: &Path) -> Result<Figures, Failure> {
    eprintln!("== look-ups over HTTP");
    let mut figures = Figures::default();
    let paths: Vec<String> =
        images.tops().step_by(7).filter_map(|top| client::path(&top)).collect();
    for (state, interval) in [("idle", "10m"), ("sweeping", "1ms")] {
        let daemon = Daemon::start(larder, data_dir, interval)?;
        daemon.wait_for_blobs(images)?;
        for method in ["HEAD", "GET"] {
            let read = client::look_ups(daemon.registry, method, &paths)?;
            figures.add(&format!("{method} of a manifest by tag, {state}"), read);
        }
        daemon.stop(Signal::TERM)?;
    }
    Ok(figures)
}

/// What commands ask of a daemon over its socket.
pub fn commands(images: &Images, larder: &str, data_dir: &Path) -> Result<Figures, Failure> {
    eprintln!("== commands");
    let mut figures = Figures::default();
    let daemon = Daemon::start(larder, data_dir, "10m")?;
    daemon.wait_until_settled(images)?;
    let process = daemon.process.id().to_string();
    for (command, method, path) in [
        ("ls", "GET", "/api/v1/images"),
        ("du", "GET", "/api/v1/usage"),
        ("sweep", "POST", "/api/v1/sweep"),
    ] {
        let began = Instant::now();
        let length = client::command(&data_dir.join("admin.sock"), method, path)?;
        let took = seconds(began.elapsed());
        figures.add(&format!("{command}: whole answer"), format!("{took}, {}", mebibytes(length)));
    }
    figures.add("peak memory with them", mebibytes(memory(&process, "VmHWM")?));
    daemon.stop(Signal::TERM)?;
    Ok(figures)
}

impl Daemon {
    /// Without any upstream that answers: everything is a hit.
    fn start(larder: &str, data_dir: &Path, sweeps: &str) -> Result<Daemon, Failure> {
        let [registry, admin] = [free_address()?, free_address()?];
        let config = data_dir.with_file_name("larder.toml");
        let upstream = |registry: &str| {
            let endpoints = r#"endpoints = ["http://127.0.0.1:9"]"#;
            format!("[[upstream]]\nregistry = \"{registry}\"\n{endpoints}\ntag_ttl = \"1000d\"\n")
        };
        let upstreams: String = REGISTRIES.iter().map(|name| upstream(name)).collect();
        let text = format!(
            "listen = [\"{registry}\"]\nbuiltin_upstreams = false\n[admin]\nlisten = \"{admin}\"\n\
             [cache]\nsweep_interval = \"{sweeps}\"\n{upstreams}"
        );
        fs::write(&config, text)?;
        let log = fs::File::create(data_dir.with_file_name("larder.log"))?;
        let began = Instant::now();
        let process = Command::new(larder)
            .args(["serve", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let daemon = Daemon { process, began, registry, admin };
        daemon.wait_for("/readyz", |answer| answer.starts_with("HTTP/1.1 200"))?;
        Ok(daemon)
    }

    /// To be called as soon as it is ready.
    fn figures(&self, of: &str, images: &Images, figures: &mut Figures) -> Result<(), Failure> {
        figures.add(&format!("{of}: ready after"), seconds(self.began.elapsed()));
        let process = self.process.id().to_string();
        figures.add(&format!("{of}: memory when ready"), mebibytes(memory(&process, "VmRSS")?));
        let first = images.tops().find_map(|top| client::path(&top)).ok_or("there is no tag")?;
        Connection::open(self.registry)?.ask("GET", &first)?;
        figures.add(&format!("{of}: first hit after"), seconds(self.began.elapsed()));
        self.wait_until_settled(images)?;
        figures.add(&format!("{of}: memory when settled"), mebibytes(memory(&process, "VmRSS")?));
        figures.add(&format!("{of}: peak memory"), mebibytes(memory(&process, "VmHWM")?));
        Ok(())
    }

    /// Until it knows every blob.
    fn wait_for_blobs(&self, images: &Images) -> Result<(), Failure> {
        let line = format!("\nlarder_store_blobs {}\n", images.blobs());
        self.wait_for("/metrics", |answer| answer.contains(&line))
    }

    /// Until it knows every blob, and what it does after a start is over.
    fn wait_until_settled(&self, images: &Images) -> Result<(), Failure> {
        self.wait_for_blobs(images)?;
        let mut before = self.processor_ticks()?;
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = self.processor_ticks()?;
            // A hundred are a second.
            if now < before + 10 || self.began.elapsed() > PATIENCE {
                return Ok(());
            }
            before = now;
        }
    }

    fn wait_for(&self, path: &str, is_it: impl Fn(&str) -> bool) -> Result<(), Failure> {
        while self.began.elapsed() < PATIENCE {
            if client::get(self.admin, path).is_ok_and(|answer| is_it(&answer)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("the daemon did not come to answer {path} as it should").into())
    }

    /// User and system time (proc_pid_stat(5), fields 14 and 15).
    fn processor_ticks(&self) -> Result<u64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let after_name = stat.rsplit_once(')').ok_or("no stat")?.1;
        let fields = after_name.split_whitespace().skip(11).take(2);
        Ok(fields.map(|field| field.parse::<u64>().unwrap_or_default()).sum())
    }

    fn stop(mut self, signal: Signal) -> Result<(), Failure> {
        kill_process(Pid::from_child(&self.process), signal)?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

//! What Larder says of itself when it starts: to the log, and to the service manager.

use std::{path::Path, time::Duration};

use bytesize::ByteSize;

use crate::{
    Larder,
    config::{self, Config, Listen, Size, Upstream},
};

/// Logs where Larder listens, where its data is, its budget and what it mirrors.
pub(crate) fn started(config: &Config, larder: &Larder) {
    tracing::info!(
        "larder {} listens on {}; metrics and health on http://{}",
        env!("CARGO_PKG_VERSION"),
        listeners(config, larder).join(", "),
        larder.admin_address()
    );
    tracing::info!("{}", budget(config));
    tracing::info!("{}", mirrors(&config.upstreams));
    if let Some(offline) = offline(&config.upstreams) {
        tracing::info!("{offline}");
    }
    if config.listens_on_loopback_only() {
        tracing::info!(
            "only this machine can pull; for the LAN: larder serve --listen 0.0.0.0:5000"
        );
    }
}

/// Tells systemd, when it started Larder with `Type=notify`.
pub(crate) fn to_service_manager(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

fn listeners(config: &Config, larder: &Larder) -> Vec<String> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let tcp = larder.registry_addresses().iter().map(|address| format!("{scheme}://{address}"));
    let unix = config
        .listen
        .iter()
        .filter(|listen| matches!(listen, Listen::Unix(_)))
        .map(Listen::to_string);
    tcp.chain(unix).collect()
}

fn budget(config: &Config) -> String {
    let data_dir = config.data_dir.display();
    let kept_free = match total_space(&config.data_dir) {
        Ok(total) => format!(
            "{}, keeps {} free of {}",
            may_hold(&config.cache),
            ByteSize(config.cache.min_free_bytes(total)).display().iec(),
            ByteSize(total).display().iec()
        ),
        Err(error) => format!("free space is unknown: {error}"),
    };
    let forgets = match config.cache.expire_after {
        Some(age) => format!("forgets what nobody pulled for {}", shown(age)),
        None => "forgets nothing by age".to_owned(),
    };
    format!("data in {data_dir}: {kept_free}, {forgets}")
}

/// A part of what it holds plus what is free changes with what others take of the disk.
fn may_hold(cache: &config::Cache) -> String {
    match cache.max_size {
        Size::Bytes(bytes) => format!("holds at most {}", ByteSize(bytes).display().iec()),
        Size::Percent(part) => format!("holds at most {part} % of its own and the free space"),
    }
}

/// In days where they are whole: people write `90d`, not `2months 29days 2h`.
fn shown(duration: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match duration.as_secs() {
        seconds if seconds >= DAY && seconds % DAY == 0 => format!("{}d", seconds / DAY),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// Bytes in the file system that holds `data_dir`.
fn total_space(data_dir: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(data_dir)?;
    Ok(space.f_blocks.saturating_mul(space.f_frsize))
}

fn mirrors(upstreams: &[Upstream]) -> String {
    let (bare, named): (Vec<_>, Vec<_>) = upstreams.iter().partition(|upstream| upstream.default);
    match (bare.as_slice(), named.as_slice()) {
        ([], []) => "mirrors nothing: no upstream is configured".to_owned(),
        ([], named) => format!("mirrors, by name: {}", names(named)),
        (bare, []) => format!("mirrors {}", names(bare)),
        (bare, named) => format!("mirrors {}, and by name: {}", names(bare), names(named)),
    }
}

/// Where nothing is asked. `None`: nowhere.
fn offline(upstreams: &[Upstream]) -> Option<String> {
    let offline: Vec<_> = upstreams.iter().filter(|upstream| upstream.offline).collect();
    match offline.len() {
        0 => None,
        all if all == upstreams.len() => {
            Some("offline: serves what is cached, and asks nobody".to_owned())
        }
        _ => Some(format!("offline for {}: serves what is cached of it", names(&offline))),
    }
}

fn names(upstreams: &[&Upstream]) -> String {
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.registry.as_str()).collect();
    names.join(", ")
}

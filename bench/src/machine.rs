//! What it was measured on.

use std::{fs, process::Command};

/// The date, Larder's commit, the compiler, the processors, the memory and the kernel.
pub fn text() -> String {
    format!(
        "{}; commit {}; {}; {}; {} GiB; {}; OpenSSL {}",
        output("date", &["--utc", "+%F"]),
        output("git", &["describe", "--always", "--dirty"]),
        output("rustc", &["--version"]),
        processors(),
        memory_gib(),
        output("uname", &["-sr"]),
        output("openssl", &["version"]).trim_start_matches("OpenSSL "),
    )
}

fn processors() -> String {
    let all = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = all.lines().filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> =
        models.filter_map(|line| line.split_once(": ")).map(|(_, model)| model).collect();
    format!("{} × {}", models.len(), models.first().unwrap_or(&"unknown"))
}

fn memory_gib() -> u64 {
    let all = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = all.lines().next().and_then(|line| line.split_whitespace().nth(1));
    total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 20
}

/// What a command says, or that it does not.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}

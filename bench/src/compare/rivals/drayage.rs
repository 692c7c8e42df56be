//! PyPI's drayage. It has no settings for speed; it speaks TLS only as a transparent proxy.

use std::{fs, io, path::Path, process::Command};

use super::Assignment;

/// Writes its configuration, and says how it is started.
pub fn command(program: &Path, assignment: &Assignment<'_>) -> io::Result<Command> {
    let Assignment { upstream, listen, directory, .. } = assignment;
    let cache = directory.join("cache");
    fs::create_dir(&cache)?;
    // Its time limit is one of the whole download.
    let text = format!(
        "listen = \"{listen}\"\ncache_dir = \"{cache}\"\nmanifest_ttl_seconds = 86400\n\
         read_timeout_secs = 600\n\
         [upstreams.docker_io]\nregistry = \"http://{upstream}\"\n",
        cache = cache.display(),
    );
    let file = directory.join("config.toml");
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(file).env("RUST_LOG", "error");
    Ok(command)
}

//! Larder as it comes: nothing is set but who listens where, and who is upstream.

use std::{fs, io, path::Path, process::Command};

use super::Assignment;
use crate::server::free_address;

/// Four requests at once for a large blob.
pub const STREAMS: &str = "[download]\nstreams = 4\n";

/// Prefetch is on as Larder comes, but takes only what is idle of six downloads, which are all that
/// skopeo begins at once, and of half of sixteen connections.
pub const PREFETCH: &str = "max_connections = 32\n[download]\nmax_concurrent = 12\n";

/// `settings` go to the end of the file, which is about upstream.
pub fn command(program: &Path, assignment: &Assignment<'_>, settings: &str) -> io::Result<Command> {
    let Assignment { upstream, listen, tls, directory } = assignment;
    let tls = tls.map_or(String::new(), |identity| {
        let [cert, key] = [&identity.certificate, &identity.key].map(|path| path.display());
        format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n")
    });
    let text = format!(
        "listen = [\"{listen}\"]\ndata_dir = \"{data}\"\n\
         [admin]\nlisten = \"{admin}\"\n{tls}\
         [[upstream]]\nregistry = \"docker.io\"\nendpoints = [\"http://{upstream}\"]\n{settings}",
        data = directory.join("data").display(),
        admin = free_address()?,
    );
    let file = directory.join("larder.toml");
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(file);
    Ok(command)
}

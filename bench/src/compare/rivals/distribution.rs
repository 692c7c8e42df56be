//! Debian's docker-registry as a pull-through cache.

use std::{fs, io, process::Command};

use super::Assignment;

/// Writes its configuration, and says how it is started.
pub fn command(assignment: &Assignment<'_>) -> io::Result<Command> {
    let Assignment { upstream, listen, tls, directory } = assignment;
    let tls = tls.map_or(String::new(), |identity| {
        let [certificate, key] = [&identity.certificate, &identity.key].map(|path| path.display());
        format!("  tls: {{ certificate: \"{certificate}\", key: \"{key}\", minimumtls: tls1.3 }}\n")
    });
    let text = format!(
        r#"version: 0.1
log:
  level: error
  accesslog: {{ disabled: true }}
storage:
  cache: {{ blobdescriptor: inmemory }}
  filesystem: {{ rootdirectory: "{storage}", maxthreads: 1000 }}
  maintenance: {{ uploadpurging: {{ enabled: false }} }}
http:
  addr: "{listen}"
{tls}proxy:
  remoteurl: "http://{upstream}"
"#,
        storage = directory.join("storage").display(),
    );
    let file = directory.join("config.yml");
    fs::write(&file, text)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(file);
    Ok(command)
}

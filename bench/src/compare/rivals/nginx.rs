//! nginx as a cache in front of a registry.
//!
//! One request for many clients (`proxy_cache_lock`, with limits that no download reaches), files
//! at once where they stay, sent by sendfile; connections to upstream are kept; no log.
//! It verifies nothing, follows no redirect and fetches no token, so what it costs is the least
//! that a cache which writes files can cost.

use std::{fs, io, process::Command};

use super::{Assignment, Identity};

/// A file for each response.
pub const WHOLE: &str = "proxy_cache_key $uri;";

/// A file for each 4 MiB of a response.
pub const SLICES: &str = "slice 4m; proxy_set_header Range $slice_range; \
                          proxy_cache_key $uri$slice_range;";

/// Files stay open for the next hit.
pub const KEPT_OPEN: &str = "open_file_cache max=10000 inactive=300s; open_file_cache_valid 300s;";

/// Files are read and written on other threads, so that a slow disk stalls no other client.
pub const THREADS: &str = "aio threads; aio_write on;";

/// `files` says which files there are, and how they are read and written.
pub fn command(assignment: &Assignment<'_>, files: &[&str]) -> io::Result<Command> {
    let directory = &assignment.directory;
    let file = directory.join("nginx.conf");
    fs::write(&file, config(assignment, &files.join("\n            ")))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(file).arg("-e").arg(directory.join("error.log"));
    Ok(command)
}

fn config(assignment: &Assignment<'_>, files: &str) -> String {
    let Assignment { upstream, listen, tls, directory } = assignment;
    let (on_listen, tls) =
        tls.map_or(("", String::new()), |identity| ("ssl http2", tls_of(identity)));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {};\n", directory.join(kind).display()))
        .concat();
    format!(
        r#"
user root;
worker_processes auto;
worker_rlimit_nofile 65536;
daemon off;
pid {pid};
events {{
    worker_connections 16384;
    multi_accept on;
}}
http {{
{temporary}
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    proxy_cache_path {cache} keys_zone=registry:16m levels=1:2
        use_temp_path=off max_size=100g inactive=30d;
    upstream registry {{
        server {upstream};
        keepalive 64;
    }}
    server {{
        listen {listen} {on_listen} backlog=4096;
        {tls}
        location / {{
            proxy_pass http://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 16k;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 256k;
            proxy_cache registry;
            {files}
            proxy_cache_valid 200 206 30d;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
            proxy_cache_lock on;
            proxy_cache_lock_age 1h;
            proxy_cache_lock_timeout 1h;
        }}
    }}
}}
"#,
        pid = directory.join("pid").display(),
        cache = directory.join("cache").display(),
    )
}

fn tls_of(identity: &Identity) -> String {
    format!(
        "ssl_certificate {};
        ssl_certificate_key {};
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_conf_command Options KTLS;
        ssl_buffer_size 16k;
        output_buffers 2 256k;
        http2_chunk_size 64k;",
        identity.certificate.display(),
        identity.key.display(),
    )
}

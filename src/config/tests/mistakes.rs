//! Mistakes, and the lines they are answered with.

use super::*;

/// Every mistake that a file can hold, and the one line it is answered with.
const MISTAKES: &[(&str, &str)] = &[
    // Values
    (
        "[cache]\n\nexpire_after = \"90 apples\"",
        r#"larder.toml:3: cache.expire_after: "90 apples" is no duration; write for example "90d" or "never""#,
    ),
    (
        "[cache]\nexpire_after = \"0s\"",
        r#"larder.toml:2: cache.expire_after: "0s" is too short; write a time above zero"#,
    ),
    (
        "[cache]\nsweep_interval = \"0s\"",
        r#"larder.toml:2: cache.sweep_interval: "0s" is too short; write a time above zero"#,
    ),
    (
        "[cache]\nmax_stale = 7",
        r#"larder.toml:2: cache.max_stale: 7 is no duration; write for example "90d" or "never""#,
    ),
    (
        "[download]\nidle_timeout = \"1000y\"",
        r#"larder.toml:2: download.idle_timeout: "1000y" is no duration; write for example "30s" or "1h 30m""#,
    ),
    (
        "[download]\nretries = -1",
        "larder.toml:2: download.retries: -1 is no whole number; write for example 8",
    ),
    (
        "[download]\nstreams = 0",
        "larder.toml:2: download.streams: 0 is no number above zero; write for example 6",
    ),
    (
        "[download]\nmax_concurrent = 0",
        "larder.toml:2: download.max_concurrent: 0 is no number above zero; write for example 6",
    ),
    (
        "[download]\nmax_concurrent = \"6\"",
        r#"larder.toml:2: download.max_concurrent: "6" is no number above zero; write for example 6"#,
    ),
    (
        "drain_timeout = \"never\"",
        r#"larder.toml:1: drain_timeout: "never" is no duration; write for example "30s" or "1h 30m""#,
    ),
    (
        "[cache]\nmin_free = \"5\"",
        r#"larder.toml:2: cache.min_free: "5" is no size; write for example "100GiB" or "10%""#,
    ),
    (
        "[cache]\nmin_free = \"101%\"",
        r#"larder.toml:2: cache.min_free: "101%" is no size; write for example "100GiB" or "10%""#,
    ),
    (
        "[cache]\nmin_free = \"-1GiB\"",
        r#"larder.toml:2: cache.min_free: "-1GiB" is no size; write for example "100GiB" or "10%""#,
    ),
    (
        "[cache]\non_deleted = \"keep\"",
        r#"larder.toml:2: cache.on_deleted: "keep" is none of "follow", "serve""#,
    ),
    (
        "listen = [\n  \"127.0.0.1:1\",\n  \":5000\",\n]",
        r#"larder.toml:3: listen: ":5000" is no address to listen on; write for example "127.0.0.1:5000", "[::]:5000" or "unix:/run/larder.sock""#,
    ),
    ("listen = []", "larder.toml:1: listen: is empty; leave the key out or write one"),
    (
        "[admin]\nlisten = \"unix:/x\"",
        r#"larder.toml:2: admin.listen: "unix:/x" is no address to listen on; write for example "127.0.0.1:5001""#,
    ),
    (
        "data_dir = \"\"",
        r#"larder.toml:1: data_dir: "" is no path; write for example "/var/lib/larder""#,
    ),
    (
        "builtin_upstreams = \"no\"",
        r#"larder.toml:1: builtin_upstreams: "no" is neither true nor false"#,
    ),
    (
        "[access]\nallow = [\"10.0.0.0/99\"]",
        r#"larder.toml:2: access.allow: "10.0.0.0/99" is no network; write for example "10.0.0.0/8" or "fd00::/8""#,
    ),
    (
        "[log]\nlevel = {}",
        r#"larder.toml:2: log.level: this table is none of "error", "warn", "info", "debug", "trace""#,
    ),
    ("[tls]\ncert = \"cert.pem\"", "larder.toml:2: tls.cert: has no key; add key"),
    ("[tls]\nkey = \"key.pem\"", "larder.toml:2: tls.key: has no certificate; add cert"),
    (
        "[tls]\ncert = \"absent.pem\"\nkey = \"key.pem\"",
        "larder.toml:2: tls.cert: cannot read absent.pem: No such file or directory (os error 2); name a file that this user may read",
    ),
    (
        "[[upstream]]\nregistry = \"a.b\"\nclient_cert = \"client.pem\"",
        "larder.toml:3: upstream.client_cert: has no key; add client_key",
    ),
    (
        "[[upstream]]\nregistry = \"a.b\"\nendpoints = [{ url = \"https://a.b\", client_key = \"client-key.pem\" }]",
        "larder.toml:3: upstream.endpoints.client_key: has no certificate; add client_cert",
    ),
    (
        "[[upstream]]\nregistry = \"a.b\"\nclient_cert = \"client.pem\"\nclient_key = \"absent.pem\"",
        "larder.toml:4: upstream.client_key: cannot read absent.pem: No such file or directory (os error 2); name a file that this user may read",
    ),
    (
        "[[upstream]]\nregistry = \"a.b\"\ninsecure_skip_verify = \"yes\"",
        r#"larder.toml:3: upstream.insecure_skip_verify: "yes" is neither true nor false"#,
    ),
    (
        "[[upstream]]\nregistry = \"a.b\"\nproxy = \"socks5://me:s3cret@proxy\"",
        r#"larder.toml:3: upstream.proxy: names a proxy that does not speak HTTP; write for example http://proxy:3128, with user:password@ before the host if need be, special characters in them as %40, or "direct""#,
    ),
    (
        "[[upstream]]\nregistry = \"a.b\"\nproxy = \"http://me:s3cret/x@proxy\"",
        r#"larder.toml:3: upstream.proxy: is no proxy; write for example http://proxy:3128, with user:password@ before the host if need be, special characters in them as %40, or "direct""#,
    ),
    // Rules
    (
        "[[cache.rule]]\ntag_ttl = \"1m\"",
        "larder.toml:1: cache.rule.match: is missing; write for example match = \"docker.io/library/*:*\"",
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/**\"",
        "larder.toml:2: cache.rule.match: says nothing of these images; add tag_ttl, expire_after, pin or deny (deny = false makes an exception from the rules below)",
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/**\"\npin = true\ndeny = true",
        "larder.toml:3: cache.rule.pin: keeps what nobody gets; write pin or deny, not both",
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/**\"\npin = true\nexpire_after = \"1d\"",
        "larder.toml:4: cache.rule.expire_after: has no effect on what is pinned; leave it out",
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/**\"\ntag_ttl = \"1d\"\ndeny = true",
        "larder.toml:3: cache.rule.tag_ttl: has no effect on what is denied; leave it out",
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/Library/**\"\ndeny = true",
        r#"larder.toml:2: cache.rule.match: "docker.io/Library/**" is no pattern of images; write for example "docker.io/library/*:*", in small letters up to the tag"#,
    ),
    (
        "[[cache.rule]]\nmatch = 7\ndeny = true",
        r#"larder.toml:2: cache.rule.match: 7 is no pattern of images; write for example "docker.io/library/*:*", in small letters up to the tag"#,
    ),
    (
        "[[cache.rule]]\nmatch = \"ghcr.io/a@sha256:00\"\npin = true",
        r#"larder.toml:2: cache.rule.match: a rule is about names; leave out the digest, and write for example "docker.io/library/nginx:1.*""#,
    ),
    (
        "[[cache.rule]]\nmatch = \"nginx:1.*\"\ndeny = true",
        r#"larder.toml:2: cache.rule.match: "nginx:1.*" is without a registry; write "docker.io/library/nginx:1.*""#,
    ),
    (
        "[[cache.rule]]\nmatch = \"bitnami/*\"\ndeny = true",
        r#"larder.toml:2: cache.rule.match: "bitnami/*" is without a registry; write "docker.io/bitnami/*""#,
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/nginx\"\ndeny = true",
        r#"larder.toml:2: cache.rule.match: "docker.io/nginx" is short for another name; write "docker.io/library/nginx""#,
    ),
    (
        "[[cache.rule]]\nmatch = \"gh.local/a:1\"\ndeny = true\n[[upstream]]\nregistry = \"ghcr.io\"\naliases = [\"gh.local\"]",
        r#"larder.toml:2: cache.rule.match: "gh.local/a:1" is not by the registry's own name: gh.local is an alias of ghcr.io; write "ghcr.io/a:1""#,
    ),
    (
        "[cache.rule]\nmatch = \"docker.io/**\"",
        "larder.toml:1: cache.rule: is no list of sections; write [[cache.rule]]",
    ),
    (
        "[[cache.rule]]\nmatch = \"docker.io/**\"\ndenied = true\npin = true",
        "larder.toml:3: cache.rule.denied: no such key; the nearest is cache.rule.deny",
    ),
    (
        "[cache]\noffline = \"yes\"",
        r#"larder.toml:2: cache.offline: "yes" is neither true nor false"#,
    ),
    // Keys
    (
        "[cache]\nexpires_after = \"90d\"",
        "larder.toml:2: cache.expires_after: no such key; the nearest is cache.expire_after",
    ),
    (
        "expire_after = \"90d\"",
        "larder.toml:1: expire_after: no such key; the nearest is cache.expire_after",
    ),
    ("[cahce]\nexpire_after = \"90d\"", "larder.toml:1: cahce: no such key; the nearest is cache"),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ntag-ttl = \"1m\"",
        "larder.toml:3: upstream.tag-ttl: no such key; the nearest is upstream.tag_ttl",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nendpoints = [{ url = \"https://a\", password-file = \"s3cret\" }]",
        "larder.toml:3: upstream.endpoints.password-file: no such key; the nearest is upstream.endpoints.password_file",
    ),
    ("cache = 5", "larder.toml:1: cache: is no section; write [cache]"),
    (
        "[upstream]\nregistry = \"ghcr.io\"",
        "larder.toml:1: upstream: is no list of sections; write [[upstream]]",
    ),
    // Upstreams
    (
        "[[upstream]]\ntag_ttl = \"1m\"",
        "larder.toml:1: upstream.registry: is missing; write for example registry = \"ghcr.io\"",
    ),
    (
        "[[upstream]]\nregistry = \"https://ghcr.io\"",
        r#"larder.toml:2: upstream.registry: "https://ghcr.io" is no host name; write for example "ghcr.io" or "registry.corp:5000""#,
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\n[[upstream]]\nregistry = \"GHCR.io\"",
        "larder.toml:4: upstream.registry: ghcr.io has an [[upstream]] already; write all its keys there",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ndefault = true\n[[upstream]]\nregistry = \"quay.io\"\ndefault = true",
        "larder.toml:6: upstream.default: ghcr.io is the default already; only one registry can be",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\naliases = [\"gh\"]",
        "larder.toml:3: upstream.aliases: gh could be a repository of docker.io, where bare names are looked up; write a name with a dot, such as gh.local",
    ),
    (
        "[[upstream]]\nregistry = \"corp\"",
        "larder.toml:1: upstream.registry: corp could be a repository of docker.io, where bare names are looked up; write a name with a dot, such as corp.local",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\naliases = [\"quay.io\"]",
        "larder.toml:3: upstream.aliases: quay.io is already a name of quay.io (built in); choose another",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\naliases = [\"a.b\", \"A.B\"]",
        "larder.toml:3: upstream.aliases: a.b is already a name of ghcr.io (larder.toml:3); choose another",
    ),
    (
        "[[upstream]]\nregistry = \"quay.io\"\n[[upstream]]\nregistry = \"ghcr.io\"\naliases = [\"quay.io\"]",
        "larder.toml:5: upstream.aliases: quay.io is already a name of quay.io (larder.toml:1); choose another",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nserver_names = [\"ghcr.io\", \"a.b\"]\n[[upstream]]\nregistry = \"quay.io\"\nserver_names = [\"a.b:5000\", \"A.B\"]",
        "larder.toml:6: upstream.server_names: a.b is already a name of ghcr.io (larder.toml:3); choose another",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nserver_names = [\"quay.io\"]",
        "larder.toml:3: upstream.server_names: quay.io is already a name of quay.io (built in); choose another",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nendpoints = [\"ghcr.io\"]",
        "larder.toml:3: upstream.endpoints: want a URL; write for example \"https://registry.corp\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nendpoints = [\"https://me:s3cret@ghcr.io\"]",
        "larder.toml:3: upstream.endpoints: a URL holds no password; write username and password_file",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nendpoints = [\"https://ghcr.io/?s3cret\"]",
        "larder.toml:3: upstream.endpoints: want a URL without \"?\" and \"#\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nendpoints = []",
        "larder.toml:3: upstream.endpoints: is empty; leave the key out or write one",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nendpoints = [{ ca = \"corp.pem\" }]",
        "larder.toml:3: upstream.endpoints.url: is missing; write for example url = \"https://registry.corp\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nca = \"absent.pem\"",
        "larder.toml:3: upstream.ca: cannot read absent.pem: No such file or directory (os error 2); name a file that this user may read",
    ),
    // Secrets, which no message shows
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nusername = \"me\"",
        "larder.toml:3: upstream.username: has no password; add password_file",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\npassword = \"s3cret\"",
        "larder.toml:3: upstream.password: has no username; add username (\"<token>\" for an identity token)",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nusername = \"me\"\npassword = [\"s3cret\"]",
        "larder.toml:4: upstream.password: want text in quotes",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nusername = \"me\"\npassword = \"a\"\npassword_file = \"secret\"",
        "larder.toml:5: upstream.password_file: stands beside password; write one of them",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nusername = \"me\"\npassword_file = \"s3cret\"",
        "larder.toml:4: upstream.password_file: cannot use this file: No such file or directory (os error 2); name a file that holds the secret and that this user may read",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ndocker_config = \"secret\"",
        "larder.toml:3: upstream.docker_config: cannot use this file: it is no JSON: line 1; name Docker's config.json or a file like it",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ndocker_config = \"absent\"",
        "larder.toml:3: upstream.docker_config: cannot use this file: No such file or directory (os error 2); name Docker's config.json or a file like it",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ndocker_config = '{\"auths\":\"s3cret\"}'",
        "larder.toml:3: upstream.docker_config: cannot use this file: No such file or directory (os error 2); name Docker's config.json or a file like it",
    ),
    (
        "[[upstream]]\nregistry = \"https://me:s3cret@ghcr.io\"",
        "larder.toml:2: upstream.registry: this text is no host name; write for example \"ghcr.io\" or \"registry.corp:5000\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ncredential_helper = \"a/b\"",
        "larder.toml:3: upstream.credential_helper: \"a/b\" is no helper; write for example \"ecr-login\" for docker-credential-ecr-login",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ncredential_helper = \"pass\"\ndocker_config = \"config.json\"",
        "larder.toml:3: upstream.credential_helper: stands beside docker_config; write one of them",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nusername = \"me\"\npassword = \"s3cret\"\nhelper_ttl = \"1h\"",
        "larder.toml:5: upstream.helper_ttl: has no effect; add docker_config or credential_helper",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ncredentials = \"me\"",
        "larder.toml:3: upstream.credentials: is no list of sections; write [[upstream.credentials]]",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\n[[upstream.credentials]]\nusername = \"me\"\npassword = \"s3cret\"",
        "larder.toml:3: upstream.credentials.prefix: is missing; write for example prefix = \"team\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\n[[upstream.credentials]]\nprefix = \"Team/*\"\nusername = \"me\"\npassword = \"s3cret\"",
        "larder.toml:4: upstream.credentials.prefix: \"Team/*\" is no repository; write for example \"team\" or \"team/app\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\n[[upstream.credentials]]\nprefix = \"ghcr.io/team\"\nusername = \"me\"\npassword = \"s3cret\"",
        "larder.toml:4: upstream.credentials.prefix: begins with the registry's name; write only what comes after it",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nshare_private = [\"team/\"]",
        r#"larder.toml:3: upstream.share_private: "team/" is no pattern of repositories; write for example "team/*", or "**" for all"#,
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nshare_private = \"ghcr.io/team/*\"",
        r#"larder.toml:3: upstream.share_private: "ghcr.io/team/*" begins with the registry's name; write only what comes after it"#,
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\ntrusted_realms = [\"auth.corp:5001\"]",
        "larder.toml:3: upstream.trusted_realms: \"auth.corp:5001\" has a port, which does not count; write for example \"auth.corp\"",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\n[[upstream.credentials]]\nprefix = \"team\"",
        "larder.toml:4: upstream.credentials.prefix: has no credentials; add username and password_file",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\n[[upstream.credentials]]\nprefix = \"team\"\nusername = \"me\"\npassword = \"s3cret\"\n[[upstream.credentials]]\nprefix = \"team/\"\nusername = \"me\"\npassword = \"s3cret\"",
        "larder.toml:8: upstream.credentials.prefix: has credentials already; write one of them",
    ),
    (
        "[[upstream]]\nregistry = \"ghcr.io\"\nusername = \"me\"\npassword_file = \"empty\"",
        "larder.toml:4: upstream.password_file: cannot use this file: it is empty; name a file that holds the secret and that this user may read",
    ),
];

#[test]
fn every_mistake_is_one_line_that_names_place_key_and_remedy() {
    for (text, expected) in MISTAKES {
        let mistakes = Setting::new(text).mistakes();
        assert_eq!(&mistakes, expected, "in:\n{text}");
        assert!(!mistakes.contains("s3cret"), "{mistakes}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mistakes = Setting::new("drain_timeout = 1\n[log]\nlevl = \"info\"").mistakes();
    assert_eq!(mistakes.lines().count(), 2, "{mistakes}");
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line_but_not_shown() {
    for line in [
        "password = \"s3cret",
        "password = s3cret",
        "password = 's3cret",
        "password = \"s3cret\" s3cret",
        "password = \"\\s3cret\"",
        "password = \"\"s3cret\"",
        "password \"s3cret\"",
        "password = { s3cret }",
        "password = \"a\", password = \"s3cret\"",
        "username = \"s3cret\"\u{7}",
    ] {
        let mistakes = Setting::new(&format!("\n[[upstream]]\n{line}")).mistakes();
        assert!(mistakes.starts_with("larder.toml:3: this is no TOML: "), "{mistakes}");
        assert!(!mistakes.contains("s3cret"), "{mistakes}");
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mut setting = Setting::new("");
    setting.sources.file = Some(setting.directory.path().join("absent.toml"));
    let expected = "absent.toml: cannot read the configuration: No such file or directory (os error 2); name a file that this user may read";
    assert_eq!(setting.mistakes(), expected);
}

#[test]
fn mistakes_outside_the_file_name_the_variable_or_the_option() {
    let setting = Setting::new("")
        .with_variable("LARDER_CACHE_EXPIRE_AFTER", "soon")
        .with_variable("LARDER_UPSTREAM_GHCR_IO_PASSWORD_FILE", "/absent/s3cret")
        .with_flag("listen", "127.0.0.1:1,elsewhere");
    let mistakes = setting.mistakes();
    let lines: Vec<&str> = mistakes.lines().collect();
    assert!(lines[0].starts_with("--listen: listen: \"elsewhere\" is no address"), "{mistakes}");
    assert!(
        lines[1]
            .starts_with("LARDER_CACHE_EXPIRE_AFTER: cache.expire_after: \"soon\" is no duration"),
        "{mistakes}"
    );
    assert!(
        lines[2].starts_with(
            "LARDER_UPSTREAM_GHCR_IO_PASSWORD_FILE: upstream.password_file: cannot use"
        ),
        "{mistakes}"
    );
    assert!(
        lines[3].ends_with(": has no username; add username (\"<token>\" for an identity token)"),
        "{mistakes}"
    );
    assert!(!mistakes.contains("s3cret"), "{mistakes}");
}

//! `[[upstream]]`: what it changes and adds.

use super::*;

#[test]
fn an_upstream_changes_only_the_keys_it_states() {
    let config = load("[[upstream]]\nregistry = \"docker.io\"\ntag_ttl = \"5m\"");
    assert_eq!(config.upstreams.len(), 13);
    let hub = upstream(&config, "docker.io");
    assert_eq!(hub.tag_ttl, Duration::from_secs(300));
    assert!(hub.default);
    assert_eq!(endpoints(hub), [("https://registry-1.docker.io/", None)]);
}

#[test]
fn without_built_in_upstreams_only_those_written_are_left() {
    let config =
        load("builtin_upstreams = false\n[[upstream]]\nregistry = \"ghcr.io\"\naliases = [\"gh\"]");
    assert_eq!(config.upstreams.len(), 1);
    assert!(config.upstreams.iter().all(|upstream| !upstream.default));
    assert_eq!(config.upstreams[0].tag_ttl, Duration::from_secs(60));
    assert_eq!(config.upstreams[0].aliases, ["gh"]);
}

#[test]
fn one_registry_or_none_is_the_default() {
    let default = |text: &str| {
        let config = load(text);
        let defaults = config.upstreams.iter().filter(|upstream| upstream.default);
        defaults.map(|upstream| upstream.registry.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(default("[[upstream]]\nregistry = \"corp.io\"\ndefault = true"), ["corp.io"]);
    assert!(default("[[upstream]]\nregistry = \"docker.io\"\ndefault = false").is_empty());
    assert_eq!(default("[[upstream]]\nregistry = \"corp.io\"\ndefault = false"), ["docker.io"]);
}

#[test]
fn an_added_registry_is_asked_about_every_tag() {
    let config = load("[[upstream]]\nregistry = \"Corp.io:5000\"");
    let corp = upstream(&config, "corp.io:5000");
    assert_eq!(corp.tag_ttl, Duration::ZERO);
    assert_eq!(endpoints(corp), [("https://corp.io:5000/", None)]);
}

#[test]
fn an_added_registry_shares_what_a_built_in_one_does_not() {
    let shared = |text: &str, registry: &str| {
        let config = load(text);
        let globs = upstream(&config, registry).share_private.iter();
        globs.map(|glob| glob.as_str().to_owned()).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(shared("", "docker.io"), none);
    let without_built_in = "builtin_upstreams = false\n[[upstream]]\nregistry = \"ghcr.io\"";
    assert_eq!(shared(without_built_in, "ghcr.io"), none);
    assert_eq!(shared("[[upstream]]\nregistry = \"corp.io\"", "corp.io"), ["**"]);
    let stated =
        |value: &str| format!("[[upstream]]\nregistry = \"corp.io\"\nshare_private = {value}");
    assert_eq!(shared(&stated("[]"), "corp.io"), none);
    assert_eq!(shared(&stated("\"a/*\""), "corp.io"), ["a/*"]);
    assert_eq!(shared(&stated("[\"a/*\", \"b\"]"), "corp.io"), ["a/*", "b"]);
}

#[test]
fn accounts_that_serve_whoever_comes_are_told_of() {
    let hub = "[[upstream]]\nregistry = \"docker.io\"\nusername = \"me\"\npassword = \"s3cret\"\n";
    let corp = "[[upstream]]\nregistry = \"corp.io\"\nendpoints = [{ url = \"https://a.io\", credential_helper = \"x\" }]\n";
    let open = "listen = \"[::]:5000\"\n";
    let exposed = |parts: &[&str]| load(&parts.concat()).exposed_accounts();
    assert!(exposed(&[open]).is_empty());
    assert!(exposed(&[open, hub, corp, "[access]\nallow = \"10.0.0.0/8\""]).is_empty());
    let warnings = exposed(&[open, hub, corp]);
    let [of_hub, of_corp] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(of_hub.starts_with("docker.io has credentials"), "{of_hub}");
    assert!(of_hub.contains("every client in a loopback, private"), "{of_hub}");
    assert!(of_hub.contains("its public repositories, at the expense"), "{of_hub}");
    assert!(of_corp.contains("everything that its credentials may see"), "{of_corp}");
    let some = exposed(&[hub, "share_private = [\"team/*\", \"x\"]"]);
    assert!(some[0].contains("everyone on this machine"), "{some:?}");
    assert!(some[0].contains("private ones in team/*, x;"), "{some:?}");
    assert!(!format!("{warnings:?}{some:?}").contains("s3cret"));
}

#[test]
fn credentials_stay_on_the_first_endpoints_host_and_out_of_the_clear() {
    let setting = Setting::new(
        r#"[[upstream]]
        registry = "corp.io"
        username = "me"
        password_file = "secret"
        endpoints = [
            "https://art.corp/docker-remote/",
            "https://art.corp:8443",
            "http://art.corp",
            "https://other.corp",
            { url = "https://backup.corp", username = "<token>", password_file = "backup-password" },
            { url = "https://art.corp/x", username = "you", password = "own" },
        ]"#,
    );
    let config = setting.load();
    assert_eq!(
        endpoints(upstream(&config, "corp.io")),
        [
            ("https://art.corp/docker-remote", Some("s3cret".to_owned())),
            ("https://art.corp:8443/", Some("s3cret".to_owned())),
            ("http://art.corp/", None),
            ("https://other.corp/", None),
            ("https://backup.corp/", Some("s3cret".to_owned())),
            ("https://art.corp/x", Some("own".to_owned())),
        ]
    );
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn the_longest_prefix_comes_first_on_the_registrys_own_host() {
    let config = load(
        r#"[[upstream]]
        registry = "corp.io"
        endpoints = ["https://corp.io", "https://other.corp"]
        [[upstream.credentials]]
        prefix = "team"
        username = "team"
        password = "s3cret"
        [[upstream.credentials]]
        prefix = "team/app/"
        username = "<token>"
        password_file = "secret""#,
    );
    let [own, other] = upstream(&config, "corp.io").endpoints.as_slice() else {
        panic!("{config:?}");
    };
    let prefixes: Vec<&str> =
        own.credentials.by_prefix.iter().map(|(prefix, _)| prefix.as_str()).collect();
    assert_eq!(prefixes, ["team/app", "team"]);
    assert!(own.credentials.others.is_none() && other.credentials.is_empty());
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn authorities_hold_for_every_endpoint_without_its_own() {
    let setting = Setting::new(
        r#"[[upstream]]
        registry = "corp.io"
        ca = "corp.pem"
        endpoints = ["https://a.io", { url = "https://b.io", ca = "secret" }]"#,
    );
    let config = setting.load();
    let authorities = upstream(&config, "corp.io").endpoints.iter().map(|endpoint| &endpoint.ca);
    let expected = ["corp.pem", "secret"].map(|name| Some(setting.directory.path().join(name)));
    assert!(authorities.eq(expected.iter()));
}

/// A certificate says who Larder is, as credentials do.
#[test]
fn a_client_certificate_stays_on_the_first_endpoints_host() {
    let setting = Setting::new(
        r#"[[upstream]]
        registry = "corp.io"
        client_cert = "client.pem"
        client_key = "client-key.pem"
        endpoints = [
            "https://a.io",
            "https://a.io:8443/x",
            "https://b.io",
            { url = "https://c.io", client_cert = "cert.pem", client_key = "key.pem" },
        ]"#,
    );
    let config = setting.load();
    let certificates = upstream(&config, "corp.io").endpoints.iter().map(|endpoint| {
        let files = endpoint.client_certificate.as_ref()?;
        Some([&files.cert, &files.key].map(|file| file.file_name().unwrap().to_str().unwrap()))
    });
    let (all, own) = (["client.pem", "client-key.pem"], ["cert.pem", "key.pem"]);
    assert!(certificates.eq([Some(all), Some(all), None, Some(own)]));
}

#[test]
fn a_certificate_that_is_not_verified_is_a_warning() {
    let config = load(
        r#"[[upstream]]
        registry = "corp.io"
        insecure_skip_verify = true
        endpoints = [
            "https://a.io",
            { url = "https://b.io", insecure_skip_verify = false },
            "http://c.io",
        ]"#,
    );
    let endpoints = &upstream(&config, "corp.io").endpoints;
    let unverified = endpoints.iter().map(|endpoint| endpoint.insecure_skip_verify);
    assert!(unverified.eq([true, false, true]));
    let certificates =
        config.warnings.iter().map(|warning| warning.split(" is not").next().unwrap());
    let expected =
        ["https://a.io/", "http://c.io/"].map(|url| format!("corp.io: the certificate of {url}"));
    assert!(certificates.eq(expected), "{:?}", config.warnings);
}

#[test]
fn one_key_of_one_upstream_may_be_a_variable() {
    let file = "[[upstream]]\nregistry = \"my-corp.io:5000\"\nusername = \"me\"\npassword_file = \"secret\"";
    let setting = Setting::new(file)
        .with_variable("LARDER_UPSTREAM_MY_CORP_IO_5000_PASSWORD", "stronger")
        .with_variable("LARDER_UPSTREAM_GHCR_IO_TAG_TTL", "7s")
        .with_variable("LARDER_UPSTREAM_QUAY_IO_ENDPOINTS", "http://a.io/, http://b.io")
        .with_variable("LARDER_UPSTREAM_DOCKER_IO_DEFAULT", "false");
    let config = setting.load();
    let corp = upstream(&config, "my-corp.io:5000");
    assert_eq!(endpoints(corp), [("https://my-corp.io:5000/", Some("stronger".to_owned()))]);
    assert_eq!(upstream(&config, "ghcr.io").tag_ttl, Duration::from_secs(7));
    let quay = endpoints(upstream(&config, "quay.io"));
    assert_eq!(quay, [("http://a.io/", None), ("http://b.io/", None)]);
    assert!(!upstream(&config, "docker.io").default);
}

#[test]
fn a_variable_that_two_registries_share_is_refused() {
    let file = "[[upstream]]\nregistry = \"a-b.io\"\n[[upstream]]\nregistry = \"a.b.io\"";
    let setting = Setting::new(file).with_variable("LARDER_UPSTREAM_A_B_IO_TAG_TTL", "1m");
    let expected = "LARDER_UPSTREAM_A_B_IO_TAG_TTL: upstream.tag_ttl: two registries share this variable; write the key into the file";
    assert_eq!(setting.mistakes(), expected);
}

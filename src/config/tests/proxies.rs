//! Proxies, as the environment and the configuration name them.

use super::*;

/// The way to a URL: `direct`, a proxy with who Larder is there, or why there is none.
fn way(proxies: &Proxies, url: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    let port = url.port_or_known_default().unwrap();
    match proxies.route(url.scheme(), url.host_str().unwrap(), port) {
        Route::Direct => "direct".to_owned(),
        Route::Closed(reason) => reason.to_owned(),
        Route::Through(proxy) => match &proxy.identity {
            Identity::User { name, password } => format!("{} {name}:{password}", proxy.url),
            Identity::Anonymous | Identity::Token(_) | Identity::RegistryToken(_) => {
                format!("{} {:?}", proxy.url, proxy.identity)
            }
        },
    }
}

fn proxies<'c>(config: &'c Config, registry: &str) -> Vec<&'c Proxies> {
    let endpoints = &upstream(config, registry).endpoints;
    endpoints.iter().map(|endpoint| endpoint.proxies.as_ref()).collect()
}

/// The way to `url` in an environment written `NAME=value NAME=value`, and the warnings.
fn way_in(variables: &str, url: &str) -> (String, String) {
    let variables = variables.split_whitespace().map(|variable| variable.split_once('=').unwrap());
    let setting = variables
        .fold(Setting::new(""), |setting, (name, value)| setting.with_variable(name, value));
    let config = setting.load();
    (way(proxies(&config, "ghcr.io")[0], url), config.warnings.join("\n"))
}

#[test]
fn the_environment_names_proxies() {
    let (http, https) = ("http://ghcr.io/v2/", "https://ghcr.io/v2/");
    let table = [
        ("", https, "direct"),
        ("HTTPS_PROXY=http://p:3128", https, "http://p:3128/ Anonymous"),
        ("HTTPS_PROXY=http://p:3128", http, "direct"),
        ("HTTP_PROXY=http://p:3128/", http, "http://p:3128/ Anonymous"),
        ("HTTP_PROXY=http://p:3128", https, "direct"),
        ("http_proxy=http://a HTTP_PROXY=http://b", http, "http://a/ Anonymous"),
        ("http_proxy= HTTP_PROXY=http://b", http, "http://b/ Anonymous"),
        ("ALL_PROXY=p:3128", http, "http://p:3128/ Anonymous"),
        ("all_proxy=p:3128 https_proxy=https://q", https, "https://q/ Anonymous"),
        ("HTTPS_PROXY=http://me:p%40ss%3A%25@p:80", https, "http://p/ me:p@ss:%"),
        ("HTTPS_PROXY=http://me@[::1]:3128", https, "http://[::1]:3128/ me:"),
        ("HTTPS_PROXY=p:1 NO_PROXY=quay.io,.ghcr.io", https, "http://p:1/ Anonymous"),
        ("HTTPS_PROXY=p:1 NO_PROXY=quay.io,ghcr.io", https, "direct"),
        ("HTTPS_PROXY=p:1 no_proxy=x NO_PROXY=*", https, "http://p:1/ Anonymous"),
        ("HTTPS_PROXY=p:1", "https://127.0.0.1:5000/v2/", "direct"),
        ("HTTPS_PROXY=p:1", "https://[::1]/v2/", "direct"),
        ("HTTPS_PROXY=p:1", "https://localhost/v2/", "direct"),
        ("HTTPS_PROXY=p:1", "https://10.0.0.1/v2/", "http://p:1/ Anonymous"),
    ];
    for (variables, url, want) in table {
        let (way, warnings) = way_in(variables, url);
        assert_eq!((way.as_str(), warnings.as_str()), (want, ""), "{variables} {url}");
    }
}

/// What is not Larder's own keeps nothing from starting, and is gone around by nothing.
#[test]
fn a_variable_that_is_no_proxy_closes_the_way() {
    let table = [
        ("ALL_PROXY", "socks5h://me:s3cret@p:1080", "names a proxy that does not speak HTTP"),
        ("HTTPS_PROXY", "http://", "is no proxy"),
        ("https_proxy", "http://me:s3cret@p:port", "is no proxy"),
        ("HTTPS_PROXY", "http://p:3128/s3cret", "holds more than a host and a port"),
        ("HTTPS_PROXY", "http://me:%ff@p:3128", "holds a user or password that is no text"),
    ];
    for (name, value, problem) in table {
        let (way, warnings) = way_in(&format!("{name}={value}"), "https://ghcr.io/");
        assert!(way.starts_with(&format!("{name}: {problem}; write for example ")), "{way}");
        assert!(warnings.starts_with(&way), "{warnings}");
        assert!(!warnings.contains("s3cret"), "{warnings}");
        let (way, _) = way_in(&format!("{name}={value} NO_PROXY=ghcr.io"), "https://ghcr.io/");
        assert_eq!(way, "direct");
    }
}

#[test]
fn what_an_upstream_states_replaces_the_environment() {
    let setting = Setting::new(
        r#"[[upstream]]
        registry = "corp.io"
        proxy = "http://me:s3cret@p:3128"
        endpoints = ["https://corp.io", "http://127.0.0.1", { url = "https://b.io", proxy = "direct" }]
        [[upstream]]
        registry = "quay.io"
        proxy = "direct""#,
    );
    let setting = setting
        .with_variable("HTTPS_PROXY", "other:3128")
        .with_variable("NO_PROXY", "corp.io")
        .with_variable("LARDER_UPSTREAM_NVCR_IO_PROXY", "https://q");
    let config = setting.load();
    let [first, second, third] = proxies(&config, "corp.io")[..] else {
        panic!("{config:?}");
    };
    assert_eq!(way(first, "https://corp.io/"), "http://p:3128/ me:s3cret");
    assert_eq!(way(second, "http://127.0.0.1/"), "http://p:3128/ me:s3cret");
    assert_eq!(way(third, "https://b.io/"), "direct");
    assert_eq!(way(proxies(&config, "quay.io")[0], "https://quay.io/"), "direct");
    assert_eq!(way(proxies(&config, "nvcr.io")[0], "https://nvcr.io/"), "https://q/ Anonymous");
    assert_eq!(
        way(proxies(&config, "ghcr.io")[0], "https://a.io/"),
        "http://other:3128/ Anonymous"
    );
    assert!(!format!("{config:?}").contains("s3cret"));
}

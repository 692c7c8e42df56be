//! `[[cache.rule]]`: which rule is whose, and which are none's.

use super::*;
use crate::oci::{Repository, Tag};

const RULES: &str = r#"
[[cache.rule]]
match = "docker.io/library/nginx:1.*-RC*"
expire_after = "1d"
[[cache.rule]]
match = "docker.io/library/nginx"
tag_ttl = "5m"
[[cache.rule]]
match = "docker.io/**:latest"
deny = true
[[cache.rule]]
match = "docker.io/library/*:*"
pin = true
"#;

fn rules(text: &str) -> Rules {
    load(text).cache.rules
}

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

/// What the rule of a tag is about, or, without one, of a digest.
fn rule(rules: &Rules, name: &str, tag: &str) -> String {
    let rules = rules.of(&repository(name));
    let rule = match tag {
        "" => rules.of_digests(),
        tag => rules.of_tag(&tag.parse::<Tag>().unwrap()),
    };
    rule.map_or("", Rule::as_str).to_owned()
}

#[test]
fn the_first_rule_that_matches_is_the_only_one() {
    let rules = rules(RULES);
    let (rc, nginx) = ("docker.io/library/nginx:1.*-RC*", "docker.io/library/nginx");
    let (latest, library) = ("docker.io/**:latest", "docker.io/library/*:*");
    for (name, tag, want) in [
        ("docker.io/library/nginx", "1.2-RC3", rc),
        ("docker.io/library/nginx", "1.2-rc3", nginx),
        ("docker.io/library/nginx", "latest", nginx),
        ("docker.io/library/nginx", "", nginx),
        ("docker.io/library/redis", "latest", latest),
        ("docker.io/library/redis", "7", library),
        ("docker.io/library/redis", "", library),
        ("docker.io/a/b/c", "latest", latest),
        ("docker.io/a/b/c", "", ""),
        ("ghcr.io/a/b", "latest", ""),
    ] {
        assert_eq!(rule(&rules, name, tag), want, "{name}:{tag}");
    }
}

#[test]
fn a_repository_is_denied_as_a_whole_when_nobody_gets_a_tag_of_it() {
    let denied = "[[cache.rule]]\nmatch = \"docker.io/**\"\ndeny = true\n";
    let some = "[[cache.rule]]\nmatch = \"docker.io/library/a:1\"\ndeny = true\n";
    let exception = "[[cache.rule]]\nmatch = \"docker.io/library/a:1\"\ndeny = false\n";
    let a = repository("docker.io/library/a");
    for (text, want) in [
        (denied.to_owned(), true),
        (some.to_owned(), false),
        (format!("{some}{denied}"), true),
        (format!("{exception}{denied}"), false),
    ] {
        let rules = rules(&text);
        assert_eq!(rules.of(&a).denial_of_all().is_some(), want, "{text}");
    }
}

#[test]
fn the_shortest_life_is_of_a_rule_or_of_the_section() {
    let rule = |life: &str| {
        let rule = format!("[[cache.rule]]\nmatch = \"docker.io/**\"\nexpire_after = \"{life}\"\n");
        move |section: &str| {
            let text = format!("[cache]\nexpire_after = \"{section}\"\n{rule}");
            load(&text).cache.shortest_life().map(|life| life.as_secs())
        }
    };
    assert_eq!(rule("1s")("9s"), Some(1));
    assert_eq!(rule("9s")("1s"), Some(1));
    assert_eq!(rule("never")("9s"), Some(9));
    assert_eq!(rule("9s")("never"), Some(9));
    assert_eq!(rule("never")("never"), None);
}

#[test]
fn a_rule_that_can_never_match_is_a_warning() {
    let idle = "can match no image of any registry that is mirrored; * stands for one component of a name, ** for any number";
    let after = |rule: &str, line: usize| {
        format!(
            "can never be the first that matches: \"{rule}\" (larder.toml:{line}) has all of it; put it before that"
        )
    };
    for (patterns, want) in [
        (
            vec!["docker.io/library/*", "docker.io/library/*:1", "ghcr.io/**"],
            vec![(1, after("docker.io/library/*", 1))],
        ),
        (vec!["docker.io/library/a:1", "docker.io/library/*"], vec![]),
        (
            vec!["docker.io/library/a:*", "docker.io/library/a"],
            vec![(1, after("docker.io/library/a:*", 1))],
        ),
        (
            vec!["docker.io/library/a:1.*", "**:1.2*", "ghcr.io/a:1.23"],
            vec![(2, after("**:1.2*", 4))],
        ),
        (vec!["docker.io/*"], vec![(0, idle.to_owned())]),
        (vec!["quay.corp/**"], vec![(0, idle.to_owned())]),
        (vec!["*.corp/**"], vec![(0, idle.to_owned())]),
        (vec!["*.io/**", "registry.*/pause", "**"], vec![]),
        (vec!["gcr.io/a", "**/b"], vec![]),
    ] {
        let rule = |pattern: &&str| format!("[[cache.rule]]\nmatch = \"{pattern}\"\npin = true\n");
        let text: String = patterns.iter().map(rule).collect();
        let setting = Setting::new(&text);
        let directory = format!("{}/", setting.directory.path().display());
        let warnings: Vec<String> =
            setting.load().warnings.iter().map(|line| line.replace(&directory, "")).collect();
        let want: Vec<String> = want
            .into_iter()
            .map(|(place, why)| {
                let (line, pattern) = (1 + 3 * place, patterns[place]);
                format!("larder.toml:{line}: cache.rule.match: \"{pattern}\" {why}")
            })
            .collect();
        assert_eq!(warnings, want, "{patterns:?}");
    }
}

#[test]
fn one_upstream_may_be_offline_or_the_only_one_that_is_not() {
    let offline = |text: &str| -> Vec<String> {
        let upstreams = load(text).upstreams.into_iter().filter(|upstream| upstream.offline);
        upstreams.map(|upstream| upstream.registry.to_string()).collect()
    };
    assert!(offline("").is_empty());
    let one = "[[upstream]]\nregistry = \"quay.io\"\noffline = ";
    assert_eq!(offline(&format!("{one}true")), ["quay.io"]);
    let all = "[cache]\noffline = true\n";
    assert_eq!(offline(all).len(), 13);
    let but_one = offline(&format!("{all}{one}false"));
    assert!(but_one.len() == 12 && !but_one.contains(&"quay.io".to_owned()), "{but_one:?}");
}

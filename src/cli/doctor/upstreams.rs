//! The upstreams: which are examined, and by which images.

use futures_util::{StreamExt as _, stream};

use super::report::{Row, Section};
use crate::{
    clock::Clock,
    config::{self, Config},
    finding::{Findings, Verdict},
    oci::Reference,
    upstream::{SampleImage, SampleSource, Upstream},
};

/// How many upstreams are examined at once.
const AT_ONCE: usize = 16;

/// Small public images that have been where they are for years, by registry. Tried by a HEAD, which
/// Docker Hub does not count.
const WELL_KNOWN: [(&str, &str, &str); 10] = [
    ("docker.io", "library/busybox", "latest"),
    ("ghcr.io", "linuxserver/nginx", "latest"),
    ("quay.io", "prometheus/busybox", "latest"),
    ("registry.k8s.io", "pause", "3.9"),
    ("gcr.io", "distroless/static", "latest"),
    ("mcr.microsoft.com", "hello-world", "latest"),
    ("public.ecr.aws", "docker/library/busybox", "latest"),
    ("lscr.io", "linuxserver/nginx", "latest"),
    ("cgr.dev", "chainguard/static", "latest"),
    ("registry.access.redhat.com", "ubi9/ubi-micro", "latest"),
];

/// An upstream that is examined.
pub(super) struct Examinee {
    client: Upstream,
    samples: Vec<SampleImage>,
}

/// The upstreams called `registries`, or all without any, each with those of `images` that are its own,
/// or else one that it is known to have.
pub(super) fn chosen(
    config: &Config,
    clients: Vec<Upstream>,
    registries: &[String],
    images: &[String],
) -> Result<Vec<Examinee>, String> {
    for registry in registries {
        find(config, registry)?;
    }
    let mut asked = Vec::new();
    for image in images {
        asked.push(parse(config, image)?);
    }
    let is_chosen = |upstream: &config::Upstream| {
        registries.is_empty() || registries.iter().any(|name| is_called(upstream, name))
    };
    let all = config.upstreams.iter().zip(clients);
    let chosen = all.filter(|(upstream, _)| is_chosen(upstream));
    Ok(chosen.map(|(upstream, client)| examinee(upstream, client, &asked)).collect())
}

/// Examines them all, in any order; the rows are in theirs.
pub(super) async fn examine(examinees: &[Examinee], clock: &Clock) -> Vec<Row> {
    let examinations = examinees.iter().map(|examinee| examine_one(examinee, clock));
    // Collected first: a lazy iterator of borrowing futures is too general for the compiler.
    let examinations: Vec<_> = examinations.collect();
    stream::iter(examinations).buffered(AT_ONCE).concat().await
}

async fn examine_one(examinee: &Examinee, clock: &Clock) -> Vec<Row> {
    let registry = examinee.client.registry();
    if examinee.client.ensure_online().is_err() {
        let mut findings = Findings::default();
        findings.note("offline", Verdict::skipped("nothing is asked here (offline = true)"));
        return Row::all(Section::Upstream, registry.as_str(), findings.into_vec());
    }
    let examined = examinee.client.examine(&examinee.samples, clock).await;
    let is_alone = examined.len() == 1;
    let rows = examined.into_iter().flat_map(|examined| {
        let subject = match is_alone {
            true => registry.to_string(),
            false => format!("{registry} at {}", examined.endpoint),
        };
        Row::all(Section::Upstream, &subject, examined.findings)
    });
    rows.collect()
}

fn examinee(
    upstream: &config::Upstream,
    client: Upstream,
    asked: &[(&config::Upstream, SampleImage)],
) -> Examinee {
    let own = asked.iter().filter(|(owner, _)| owner.registry == upstream.registry);
    let mut samples: Vec<SampleImage> = own.map(|(_, sample)| sample.clone()).collect();
    if samples.is_empty() {
        samples.extend(well_known(upstream));
    }
    Examinee { client, samples }
}

fn well_known(upstream: &config::Upstream) -> Option<SampleImage> {
    let known = WELL_KNOWN.iter().find(|(registry, ..)| *registry == upstream.registry.as_str());
    let (_, name, tag) = known?;
    Some(SampleImage {
        name: name.parse().ok()?,
        reference: tag.parse().ok()?,
        source: SampleSource::WellKnown,
    })
}

/// `registry/name:tag`, `registry/name@digest`, or `registry/name` for its `latest`.
fn parse<'a>(
    config: &'a Config,
    image: &str,
) -> Result<(&'a config::Upstream, SampleImage), String> {
    let wrong = || format!("--image {image}: write registry/name:tag, such as ghcr.io/owner/app:1");
    let (registry, rest) = image.split_once('/').ok_or_else(wrong)?;
    let upstream = find(config, registry).map_err(|reason| format!("--image {reason}"))?;
    let (name, reference) = match rest.split_once('@').or_else(|| rest.split_once(':')) {
        Some((name, reference)) => (name, reference),
        None => (rest, "latest"),
    };
    let reference: Reference = reference.parse().map_err(|_| wrong())?;
    let name = name.parse().map_err(|_| wrong())?;
    Ok((upstream, SampleImage { name, reference, source: SampleSource::Asked }))
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a config::Upstream, String> {
    let mut upstreams = config.upstreams.iter();
    upstreams.find(|upstream| is_called(upstream, name)).ok_or_else(|| {
        let known = config.upstreams.iter().map(|upstream| upstream.registry.as_str());
        match known.collect::<Vec<&str>>().as_slice() {
            [] => format!("{name}: no upstream is configured; add an [[upstream]] for it"),
            known => {
                format!("{name}: no such upstream is configured; there are {}", known.join(", "))
            }
        }
    })
}

fn is_called(upstream: &config::Upstream, name: &str) -> bool {
    upstream.registry.as_str() == name || upstream.aliases.iter().any(|alias| alias == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    /// Without a file.
    fn config() -> Config {
        let flags = [("data_dir", "data".to_owned())].into();
        Config::load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn every_well_known_image_is_of_a_built_in_registry() {
        let config = config();
        for (registry, ..) in WELL_KNOWN {
            assert!(well_known(find(&config, registry).unwrap()).is_some(), "{registry}");
        }
    }

    #[test]
    fn images_are_read_with_their_registry() {
        let config = config();
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, want) in [
            ("ghcr.io/a/b:1", Some(("ghcr.io", "a/b", "1"))),
            ("quay.io/a", Some(("quay.io", "a", "latest"))),
            (&format!("docker.io/a/b@{digest}"), Some(("docker.io", "a/b", &digest))),
            ("busybox", None),
            ("library/busybox", None),
            ("ghcr.io/", None),
            ("ghcr.io/A:1", None),
            ("ghcr.io/a:-", None),
        ] {
            let read = parse(&config, image).ok().map(|(upstream, sample)| {
                let SampleImage { name, reference, .. } = sample;
                format!("{} {name} {reference}", upstream.registry)
            });
            let want = want.map(|(registry, name, tag)| format!("{registry} {name} {tag}"));
            assert_eq!(read, want, "{image}");
        }
    }
}

//! Removal by hand: what goes, what stays because something needs it, and what is refused.

use super::*;
use crate::{
    config,
    store::{CannotRemove, Place, Target, withdrawal::Withdrawal},
};

fn of_image(name: &str) -> Target {
    Target::Image(image(name))
}

async fn removed(test: &TestStore, target: &Target) -> Vec<String> {
    let planned = test.store.plan_removal(target).await.unwrap();
    let removal = test.store.remove(target).await.unwrap();
    assert_eq!(removal, planned, "what was announced is what is done");
    for digest in &removal.digests {
        assert!(!test.store.has(digest) && !test.blob_path(digest).exists());
    }
    removal.names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_image_goes_with_what_only_it_needs() {
    let test = TestStore::new();
    let base = test.put(b"base").await;
    let config = test.put(b"{}").await;
    let (a, b) = (test.put(b"a").await, test.put(b"b").await);
    let image_a = test.put_image(&config, &[&base, &a]).await;
    let image_b = test.put_image(&config, &[&base, &b]).await;
    let index = test.put_index(&[&image_a]).await;
    let app = repository(APP);
    test.store.set_tag(&app, &tag("a"), &index, test.clock.wall());
    test.store.set_tag(&app, &tag("b"), &image_b, test.clock.wall());
    // As an engine asks: for the platform's manifest by digest.
    test.store.prove_manifest(&app, &image_a);

    let refused = test.store.remove(&of_image(&format!("{APP}@{image_a}"))).await;
    assert!(
        matches!(refused, Err(CannotRemove::Listed(by)) if by == image("docker.io/team/app:a"))
    );
    assert_eq!(removed(&test, &of_image("docker.io/team/app:a")).await, ["docker.io/team/app:a"]);
    for digest in [&index, &image_a, &a] {
        assert!(!test.store.has(digest));
        assert!(!test.store.is_proved(&app, digest));
    }
    for digest in [&image_b, &config, &base, &b] {
        assert!(test.store.has(digest));
    }
    assert_eq!(test.store.tag(&app, &tag("a")), None);
    let again = test.store.remove(&of_image("docker.io/team/app:a")).await;
    assert!(matches!(again, Err(CannotRemove::NotHere)));

    let by_digest = of_image(&format!("{APP}@{image_b}"));
    let expected = ["docker.io/team/app:b".to_owned(), format!("{APP}@{image_b}")];
    assert_eq!(removed(&test, &by_digest).await, expected);
    assert_eq!(test.metrics.store_blobs.get(), 0);
    let test = test.restart().await;
    assert_eq!(test.store.tags(&app), []);
    assert_eq!(test.metrics.store_blobs.get(), 0);
}

/// Another tag, another repository and a pin keep what they need.
#[tokio::test]
async fn what_something_else_needs_stays() {
    let test = TestStore::new();
    let (app, other) = (repository(APP), repository("ghcr.io/copy/app"));
    let (manifest, _, layer) = test.put_tagged("v1").await;
    test.store.set_tag(&app, &tag("v2"), &manifest, test.clock.wall());
    test.store.set_tag(&other, &tag("v1"), &manifest, test.clock.wall());
    let digests = async |target: &str| test.store.remove(&of_image(target)).await.unwrap().digests;
    assert_eq!(digests("docker.io/team/app:v1").await, []);
    assert!(test.store.is_proved(&app, &manifest), "v2 means it");

    let pinned = image("docker.io/team/app:v2");
    test.store.pin(&pinned).await.unwrap().unwrap();
    for target in [of_image("docker.io/team/app:v2"), Target::Repository(app.clone())] {
        let refused = test.store.remove(&target).await;
        assert!(matches!(refused, Err(CannotRemove::Pinned(pins)) if pins == [pinned.clone()]));
    }
    test.store.unpin(&pinned);
    assert_eq!(digests("docker.io/team/app:v2").await, []);
    assert!(!test.store.is_proved(&app, &manifest), "the next pull asks upstream");
    let test = test.restart().await;
    assert!(!test.store.is_proved(&app, &manifest));
    assert!(test.store.has(&layer));
    let removal = test.store.remove(&of_image("ghcr.io/copy/app:v1")).await.unwrap();
    assert_eq!(removal.digests.len(), 3);
}

#[tokio::test]
async fn a_repository_goes_with_everything_that_is_only_its_own() {
    let test = TestStore::new();
    let (app, other) = (repository(APP), repository("ghcr.io/copy/app"));
    let mine = test.put_tagged("v1").await;
    let shared = test.put_tagged("v2").await;
    test.store.set_tag(&other, &tag("v2"), &shared.0, test.clock.wall());
    let by_digest = test.put_index(&[]).await;
    test.store.prove_manifest(&app, &by_digest);
    let lone = test.put(b"a blob of no manifest").await;
    test.store.prove_blob(&app, &lone);
    let list = test.put_manifest(r#"{"schemaVersion":2,"manifests":[] }"#).await;
    test.store.set_referrers(&app, &mine.0, &list, test.clock.wall());

    let names = removed(&test, &Target::Repository(app.clone())).await;
    let expected = [
        "docker.io/team/app:v1".to_owned(),
        "docker.io/team/app:v2".to_owned(),
        format!("{APP}@{by_digest}"),
    ];
    assert_eq!(names, expected);
    for digest in [&mine.0, &mine.1, &mine.2, &by_digest, &lone, &list] {
        assert!(!test.store.has(digest), "{digest}");
    }
    for digest in [&shared.0, &shared.1, &shared.2] {
        assert!(test.store.has(digest));
        assert!(!test.store.is_proved(&app, digest));
    }
    assert!(test.store.is_proved(&other, &shared.0));
    let again = test.store.remove(&Target::Repository(app)).await;
    assert!(matches!(again, Err(CannotRemove::NotHere)));
}

#[tokio::test]
async fn the_untagged_goes_and_nothing_else() {
    let test = TestStore::new();
    let (app, other) = (repository(APP), repository("ghcr.io/copy/app"));
    let old = test.put_tagged("v1").await;
    let new = test.put_tagged("new").await;
    test.store.set_tag(&app, &tag("v1"), &new.0, test.clock.wall());
    let elsewhere = test.put_index(&[]).await;
    test.store.prove_manifest(&other, &elsewhere);
    let pinned = test.put_manifest(r#"{"schemaVersion":2,"manifests":[] }"#).await;
    test.store.prove_manifest(&app, &pinned);
    test.store.pin(&image(&format!("{APP}@{pinned}"))).await.unwrap().unwrap();
    let lone = test.put(b"a blob of no manifest").await;
    let listed = test.put_manifest(r#"{"manifests":[],"schemaVersion":2}"#).await;
    test.store.set_referrers(&app, &new.0, &listed, test.clock.wall());

    let here = Target::Untagged(Place::Repository(app.clone()));
    assert_eq!(removed(&test, &here).await, [format!("{APP}@{}", old.0)]);
    assert!(!test.store.has(&old.2) && test.store.has(&elsewhere) && test.store.has(&lone));
    let registry = Target::Untagged(Place::Registry(other.registry().clone()));
    assert_eq!(removed(&test, &registry).await, [format!("ghcr.io/copy/app@{elsewhere}")]);
    assert_eq!(removed(&test, &Target::Untagged(Place::Everywhere)).await, Vec::<String>::new());
    assert!(!test.store.has(&lone));
    for digest in [&new.0, &new.1, &new.2, &pinned, &listed] {
        assert!(test.store.has(digest));
    }
}

#[tokio::test]
async fn what_is_being_downloaded_is_in_use() {
    let test = TestStore::new();
    let config = test.put(b"{}").await;
    let layer = sha256(b"layer");
    let manifest = test.put_image(&config, &[&layer]).await;
    let app = repository(APP);
    test.store.set_tag(&app, &tag("v1"), &manifest, test.clock.wall());
    test.store.prove_manifest(&app, &manifest);
    let writer = test.store.create_blob(&layer, Some(5)).await.unwrap();
    for target in [of_image("docker.io/team/app:v1"), Target::Repository(app)] {
        let refused = test.store.remove(&target).await;
        assert!(matches!(refused, Err(CannotRemove::Downloading(of)) if of == layer));
    }
    drop(writer);
    test.no_downloads_soon();
    let reader = test.store.open_blob(&config).await.unwrap().unwrap();
    let removal = test.store.remove(&of_image("docker.io/team/app:v1")).await.unwrap();
    assert_eq!(removal.digests.len(), 2);
    assert_eq!(reader.read_at(0, 2).await.unwrap(), "{}", "who reads it reads it to its end");
}

/// A rule keeps what it pins from leaving by itself, and from nobody who wants it gone.
#[tokio::test]
async fn what_a_rule_pins_is_removed_by_hand() {
    let text = format!("[[cache.rule]]\nmatch = \"{APP}\"\npin = true\n");
    let rules = config::fuzzing::from_text(&text).unwrap().cache.rules;
    let test = TestStore::with(Cache { rules, ..cache() });
    test.put_tagged("v1").await;
    let target = of_image(&format!("{APP}:v1"));
    assert_eq!(removed(&test, &target).await, [format!("{APP}:v1")]);
    assert_eq!(test.metrics.store_blobs.get(), 0);
}

/// Who waits for room looks again at once.
#[tokio::test]
async fn what_was_removed_makes_room() {
    let test = TestStore::new();
    test.put_tagged("v1").await;
    let returned = test.store.0.room.ledger().returned();
    let mut returned = std::pin::pin!(returned);
    returned.as_mut().enable();
    removed(&test, &of_image(&format!("{APP}:v1"))).await;
    returned.await;
}

/// A sweep that a stop interrupts leaves a name to everything that it has not removed.
#[tokio::test]
async fn a_clean_end_names_what_was_about_to_go() {
    let test = TestStore::new();
    test.store.looked_around().await;
    let (manifest, ..) = test.put_tagged("v1").await;
    let _withdrawn = Withdrawal::of(Arc::clone(&test.store.0), std::slice::from_ref(&manifest));
    let is_named = || {
        let json = fs::read_to_string(test.path("index.json")).unwrap();
        json.contains(&manifest.encoded())
    };
    assert!(!is_named());
    test.store.close().await;
    assert!(is_named());
}

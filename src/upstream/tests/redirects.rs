//! Redirects: what goes along, what stays behind, where they must not lead.

use super::{
    Error, anonymous, digest,
    fake::{Fake, Reply},
    get_blob, get_manifest, name, soon, tag, with_credentials,
};

/// A registry that wants `Basic user:secret` and then redirects to `target`.
async fn redirecting(target: String) -> Fake {
    Fake::start(move |seen| match seen.header("authorization") {
        Some(_) => Reply::redirect(&target),
        None => Reply::new(401).header("WWW-Authenticate", "Basic"),
    })
    .await
}

#[tokio::test]
async fn authorization_stays_behind_on_another_host() {
    let cdn = Fake::start(|_| Reply::new(200).body("content")).await;
    let fake = redirecting(format!("{}/blob?Signature=s", cdn.other_url())).await;
    let upstream = with_credentials(&fake.url(), "user", &[]);

    let mut body = get_blob(&upstream).await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "content");
    get_manifest(&upstream).await.unwrap();

    let seen = cdn.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].line, "GET /blob?Signature=s");
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));
    assert!(seen[1].header("accept").unwrap().contains("image.index"));
}

#[tokio::test]
async fn authorization_goes_along_on_the_same_host() {
    let storage = Fake::start(|_| Reply::new(200)).await;
    let fake = redirecting(format!("{}/artifacts-downloads/x", storage.url())).await;
    get_blob(&with_credentials(&fake.url(), "user", &[])).await.unwrap();
    assert!(storage.seen()[0].header("authorization").is_some());
}

#[tokio::test]
async fn authorization_does_not_come_back() {
    let storage = Fake::start(|_| Reply::new(200)).await;
    let back = format!("{}/back", storage.url());
    let cdn = Fake::start(move |_| Reply::redirect(&back)).await;
    let fake = redirecting(format!("{}/away", cdn.other_url())).await;
    get_blob(&with_credentials(&fake.url(), "user", &[])).await.unwrap();
    assert!(storage.seen()[0].header("authorization").is_none());
}

#[tokio::test]
async fn a_challenge_of_another_host_is_not_answered() {
    let cdn = Fake::start(|_| Reply::new(401).header("WWW-Authenticate", "Basic")).await;
    let fake = redirecting(format!("{}/blob", cdn.other_url())).await;
    let upstream = with_credentials(&fake.url(), "user", &[]);
    assert!(matches!(get_blob(&upstream).await, Err(Error::RefusedElsewhere(_))));
    assert!(cdn.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn five_redirects_are_followed_and_no_more() {
    for (hops, is_followed) in [(5, true), (6, false)] {
        let fake = Fake::start(move |seen| {
            let hop: u32 = seen.line.rsplit('/').next().unwrap().parse().unwrap_or(0);
            match hop == hops {
                true => Reply::new(200),
                false => Reply::redirect(&format!("/hop/{}", hop + 1)),
            }
        })
        .await;
        let outcome = get_blob(&anonymous(&[fake.url()])).await;
        assert_eq!(outcome.is_ok(), is_followed, "{hops}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_redirect_to_a_link_local_address_is_refused() {
    for target in ["http://169.254.169.254/latest", "http://[::ffff:a9fe:a9fe]/", "file:///x"] {
        let fake = Fake::start(move |_| Reply::redirect(target)).await;
        let error = get_blob(&anonymous(&[fake.url()])).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{target}: {error:?}");
    }
}

#[tokio::test]
async fn the_proof_of_a_blob_is_a_redirect_that_nobody_follows() {
    let fake = Fake::start(|_| Reply::redirect("http://169.254.169.254/blob")).await;
    let upstream = anonymous(&[fake.url()]);
    upstream.prove_blob(&name(), &digest(), soon()).await.unwrap();
    assert_eq!(fake.seen().len(), 1);
    assert_eq!(fake.count("HEAD /v2/team/app/blobs/sha256:"), 1);
}

#[tokio::test]
async fn a_blanket_move_to_another_port_proves_nothing() {
    let real = Fake::start(|_| Reply::new(404)).await;
    let url = real.url();
    let fake = Fake::start(move |seen| {
        let path = seen.line.split(' ').nth(1).unwrap();
        Reply::redirect(&format!("{url}{path}"))
    })
    .await;
    let outcome = anonymous(&[fake.url()]).prove_blob(&name(), &digest(), soon()).await;
    assert!(matches!(outcome, Err(Error::NotFound(_))), "{outcome:?}");
}

#[tokio::test]
async fn where_head_is_refused_one_byte_is_the_proof() {
    for status in [400, 401, 403, 405, 501] {
        let fake = Fake::start(move |seen| match seen.header("range") {
            _ if seen.line.starts_with("HEAD") => Reply::new(status),
            Some("bytes=0-0") => Reply::new(206).body("c"),
            _ => Reply::new(401),
        })
        .await;
        let upstream = anonymous(&[fake.url()]);
        upstream.prove_blob(&name(), &digest(), soon()).await.unwrap();
    }
    let fake = Fake::start(|_| Reply::new(403)).await;
    let outcome = anonymous(&[fake.url()]).prove_blob(&name(), &digest(), soon()).await;
    assert!(matches!(outcome, Err(Error::Denied(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_head_that_storage_refuses_is_no_denial() {
    let cdn = Fake::start(|_| Reply::new(403)).await;
    let url = format!("{}/signed-for-get", cdn.other_url());
    let fake = Fake::start(move |_| Reply::redirect(&url)).await;
    let upstream = anonymous(&[fake.url()]);
    let outcome = upstream.head_manifest(&name(), &tag(), soon()).await;
    assert!(matches!(outcome, Err(Error::HeadRefused(_))), "{outcome:?}");
}

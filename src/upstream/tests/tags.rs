//! Lists of tags: where the next page is looked for, and when there are too many.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Error, anonymous,
    fake::{Fake, Reply},
    name,
};
use crate::oci::Tag;

const LIST: &str = "GET /v2/team/app/tags/list";

fn page(tags: &str) -> Reply {
    Reply::new(200).json(&format!(r#"{{"tags":[{tags}]}}"#))
}

async fn list(urls: &[String]) -> Result<Vec<String>, Error> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let tags = anonymous(urls).list_tags(&name(), deadline).await?;
    Ok(tags.iter().map(Tag::to_string).collect())
}

/// Answers the first page with this link.
async fn linking_to(link: &'static str) -> Fake {
    Fake::start(move |seen| match seen.line.ends_with("?n=1000") {
        true => page(r#""b","a""#).header("Link", &format!("<{link}>; rel=\"next\"")),
        false => page(r#""c","b""#),
    })
    .await
}

#[tokio::test]
async fn the_next_page_is_asked_of_the_same_place() {
    let links = [
        "/v2/team/app/tags/list?last=b&n=2",
        "?last=b&n=2",
        "list?last=b&n=2",
        "https://elsewhere.test/v2/other/tags/list?last=b&n=2",
        "http://169.254.169.254/latest?last=b&n=2",
    ];
    for link in links {
        let fake = linking_to(link).await;
        assert_eq!(list(&[fake.url()]).await.unwrap(), ["a", "b", "c"], "{link}");
        let seen = fake.seen();
        let lines: Vec<_> = seen.iter().map(|seen| seen.line.as_str()).collect();
        assert_eq!(lines, [format!("{LIST}?n=1000"), format!("{LIST}?last=b&n=2")], "{link}");
    }
}

#[tokio::test]
async fn the_prefix_of_an_endpoint_stays() {
    let fake = linking_to("/v2/team/app/tags/list?last=b").await;
    assert_eq!(list(&[fake.url() + "/docker"]).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(fake.count("GET /v2/docker/team/app/tags/list?"), 2);
}

#[tokio::test]
async fn a_list_without_an_end_is_none() {
    for (link, pages) in [("?n=1000", 1), ("/v2/team/app/tags/list", 1), ("http://[", 1)] {
        let fake = linking_to(link).await;
        assert!(matches!(list(&[fake.url()]).await, Err(Error::Invalid(_))), "{link}");
        assert_eq!(fake.count(LIST), pages, "{link}");
    }
    let fake = Fake::start(|seen| page("").header("Link", &format!("<{}0>; rel=next", seen.line)));
    assert!(matches!(list(&[fake.await.url()]).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_page_that_is_too_large_is_refused() {
    let fake = Fake::start(|_| Reply::new(200).length(17 * 1024 * 1024)).await;
    assert!(matches!(list(&[fake.url()]).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn another_endpoint_begins_anew() {
    let broken = Fake::start(|seen| match seen.line.ends_with("?n=1000") {
        true => page(r#""a""#).header("Link", "<?cursor=x>; rel=\"next\""),
        false => Reply::new(502),
    })
    .await;
    let good = Fake::start(|_| page(r#""c","b""#)).await;
    assert_eq!(list(&[broken.url(), good.url()]).await.unwrap(), ["b", "c"]);
    assert_eq!(good.seen()[0].line, format!("{LIST}?n=1000"));
}

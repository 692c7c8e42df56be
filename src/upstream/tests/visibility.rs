//! Who may see a repository: what is asked, by whom, and what is made of the answers.

use super::{
    Error, digest,
    fake::{Fake, Reply, Seen},
    name, soon, tag, with_credentials,
};
use crate::{oci::Visibility, upstream::Sample};

/// What a registry answers to a HEAD and a GET.
#[derive(Clone, Copy)]
struct Says(u16, u16);

impl Says {
    fn to(self, seen: &Seen) -> Reply {
        let status = if seen.line.starts_with("HEAD") { self.0 } else { self.1 };
        match status {
            307 => Reply::redirect("http://192.0.2.1/elsewhere"),
            200 => Reply::new(200).body(r#"{"tags":["v1"]}"#),
            status => Reply::new(status),
        }
    }
}

/// What is answered to strangers and to us, what is made of it, and who was asked.
type Case = (Says, Says, Result<Visibility, &'static str>, &'static [&'static str]);

/// A registry that gives everyone a token, and strangers other answers than us.
async fn registry(to_strangers: Says, to_us: Says) -> Fake {
    Fake::start(move |seen| match seen.header("authorization") {
        Some(shown) if shown.starts_with("Basic") => Reply::new(200).json(r#"{"token":"ours"}"#),
        None if seen.line.contains(" /token") => Reply::new(200).json(r#"{"token":"anyones"}"#),
        Some("Bearer ours") => to_us.to(seen),
        Some("Bearer anyones") => to_strangers.to(seen),
        _ => Reply::challenge("/token"),
    })
    .await
}

/// Method and asker of each request that showed a token: `HEAD anyones`.
fn asked(fake: &Fake) -> Vec<String> {
    let seen = fake.seen();
    let shown = seen.iter().filter_map(|seen| {
        let token = seen.header("authorization")?.strip_prefix("Bearer ")?;
        Some(format!("{} {token}", seen.line.split(' ').next()?))
    });
    // A token that is refused is renewed once, which is not the matter here.
    let mut asked: Vec<String> = shown.collect();
    asked.dedup();
    asked
}

#[tokio::test]
async fn a_repository_is_private_when_we_may_see_what_strangers_may_not() {
    let (public, private) = (Ok(Visibility::Public), Ok(Visibility::Private));
    let (ours, theirs) = (Says(200, 200), Says(404, 404));
    let table: &[Case] = &[
        (Says(200, 500), ours, public, &["HEAD anyones"]),
        (Says(307, 500), ours, public, &["HEAD anyones"]),
        (Says(404, 500), ours, private, &["HEAD anyones", "HEAD ours"]),
        (Says(401, 401), ours, private, &["HEAD anyones", "GET anyones", "HEAD ours"]),
        (Says(403, 403), ours, private, &["HEAD anyones", "GET anyones", "HEAD ours"]),
        // Some refuse a stranger's HEAD of what they give it.
        (Says(401, 200), ours, public, &["HEAD anyones", "GET anyones"]),
        (Says(405, 200), ours, public, &["HEAD anyones", "GET anyones"]),
        (Says(404, 404), theirs, Err("not found"), &["HEAD anyones", "HEAD ours"]),
        (Says(403, 403), theirs, Err("not found"), &["HEAD anyones", "GET anyones", "HEAD ours"]),
        (Says(404, 404), Says(520, 520), Err("outage"), &["HEAD anyones", "HEAD ours"]),
        (Says(520, 520), ours, Err("outage"), &["HEAD anyones"]),
        (Says(429, 429), ours, Err("limited"), &["HEAD anyones"]),
    ];
    for (to_strangers, to_us, want, requests) in table {
        for sample in [Sample::Manifest(tag()), Sample::Blob(digest())] {
            let fake = registry(*to_strangers, *to_us).await;
            let upstream = with_credentials(&fake.url(), "anna", &[]);
            let found = upstream.visibility(&name(), &sample, soon()).await;
            let found = found.map_err(|error| match error {
                Error::NotFound(_) => "not found",
                Error::Limited { .. } => "limited",
                Error::Unreachable(_) => "outage",
                Error::Unavailable { .. }
                | Error::HeldBack(_)
                | Error::Timeout(_)
                | Error::Denied(_)
                | Error::HeadRefused(_)
                | Error::RefusedElsewhere(_)
                | Error::Offline(_)
                | Error::Invalid(_) => panic!("{error:?}"),
            });
            let case = format!("{} {} to strangers: {sample:?}", to_strangers.0, to_strangers.1);
            assert_eq!(found, *want, "{case}");
            assert_eq!(asked(&fake), *requests, "{case}");
            // A limit on strangers is none on us.
            let ours = upstream.head_manifest(&name(), &tag(), soon()).await;
            assert!(!matches!(ours, Err(Error::Limited { .. })), "{case}");
        }
    }
}

#[tokio::test]
async fn tags_are_looked_at_by_a_page_that_is_one() {
    let fake = registry(Says(0, 200), Says(0, 200)).await;
    let upstream = with_credentials(&fake.url(), "anna", &[]);
    let found = upstream.visibility(&name(), &Sample::Tags, soon()).await;
    assert_eq!(found.unwrap(), Visibility::Public);
    assert_eq!(asked(&fake), ["GET anyones"]);

    let page = Fake::start(|_| Reply::new(200).body("<html>Please log in</html>")).await;
    let upstream = with_credentials(&page.url(), "anna", &[]);
    let found = upstream.visibility(&name(), &Sample::Tags, soon()).await;
    assert!(matches!(found, Err(Error::Invalid(_))), "{found:?}");
}

#[tokio::test]
async fn our_token_and_a_strangers_are_kept_apart() {
    let fake = registry(Says(200, 200), Says(200, 200)).await;
    let upstream = with_credentials(&fake.url(), "anna", &[]);
    for _ in 0..3 {
        let deadline = soon();
        upstream.head_manifest(&name(), &tag(), deadline).await.unwrap();
        upstream.visibility(&name(), &Sample::Manifest(tag()), deadline).await.unwrap();
    }
    assert_eq!(fake.count("GET /token"), 2);
}

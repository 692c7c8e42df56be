//! What works at an endpoint and what does not: from its name to a manifest.

mod verdicts;

use std::time::Duration;

use http::{StatusCode, Uri};
use tokio::time::{Instant, timeout};

use super::{Ask, Endpoint};
use crate::{
    clock::Clock,
    config::Identity,
    finding::{Findings, Outcome, Verdict},
    upstream::{
        Error,
        answer::Answer,
        auth::Authorization,
        client::{Outgoing, causes},
        connector::{BoxError, Refused, Unresolved, line_remedy, tls_remedy},
        examination::{Examined, SampleImage},
        health::Operation,
        quota::Quota,
        redirect::{self, Redirects},
    },
};
use verdicts::{
    addresses, clock_verdict, described, head_verdict, quota_verdict, refusal_verdict,
    root_verdict, whose,
};

/// How long the examination of an endpoint may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What to do for a check that needs an image.
const NAME_ONE: &str = "name an image with --image registry/name:tag";

/// What to think of a login that is refused without an image.
const DOUBT: &str = "are the credentials still good? An image (--image) would tell for sure";

impl Endpoint {
    /// Looks at one thing after the other, until one fails that the others need.
    pub(in crate::upstream) async fn examine(
        &self,
        samples: &[SampleImage],
        clock: &Clock,
    ) -> Examined {
        let mut findings = Findings::default();
        if timeout(LIMIT, self.look(samples, clock, &mut findings)).await.is_err() {
            let limit = LIMIT.as_secs();
            findings.end(Verdict::bad(format!("still waiting, {limit} s after the first step")));
        }
        Examined { endpoint: self.url.to_string(), findings: findings.into_vec() }
    }

    /// `None`: the rest is of no use.
    async fn look(
        &self,
        samples: &[SampleImage],
        clock: &Clock,
        findings: &mut Findings,
    ) -> Option<()> {
        self.look_at_connection(clock, findings).await?;
        let root = self.look_at_root(clock, findings).await?;
        if samples.is_empty() {
            self.look_at_login(root, findings).await;
        }
        for sample in samples {
            self.look_at_image(sample, findings).await;
        }
        self.look_at_prefixes(samples, findings);
        Some(())
    }

    async fn look_at_connection(&self, clock: &Clock, findings: &mut Findings) -> Option<()> {
        let uri: Uri = self.root.as_str().parse().ok()?;
        findings.begin("resolve");
        let found = self.connector.next_hop(&uri).await;
        let found = found.map_err(|error| self.unreachable(&error, "does DNS work here?"));
        let shown = found.as_ref().map(|hop| Verdict::good(addresses(hop)));
        passed(findings, shown.map_err(Verdict::clone))?;
        let proxy = found.ok().and_then(|hop| hop.proxy);
        findings.begin("connect");
        let remedy = "is it up, is a firewall in the way, or is a proxy needed?";
        let dialled = self.connector.dial(&uri).await;
        let dialled = dialled.map(|to| Verdict::good(whose(&to.to_string(), proxy.as_ref())));
        passed(findings, dialled.map_err(|error| self.unreachable(&error, remedy)))?;
        if self.root.scheme() != "https" {
            return Some(());
        }
        findings.begin("tls");
        let shaken = self.connector.shake_hands(&uri).await;
        let shaken = shaken.map(|handshake| match handshake {
            Some(handshake) => handshake.verdict(clock.wall()),
            None => Verdict::doubtful("spoken in the clear"),
        });
        let what = |error: BoxError| {
            Verdict::bad(format!("{}; {}", causes(error.as_ref()), tls_remedy(error.as_ref())))
        };
        passed(findings, shaken.map_err(what))
    }

    fn unreachable(&self, error: &BoxError, remedy: &'static str) -> Verdict {
        let what = causes(error.as_ref());
        let what = match error.is::<Refused>() || error.is::<Unresolved>() {
            true => what,
            false => format!("{}: {what}", self.authority()),
        };
        Verdict::bad(match line_remedy(error, remedy) {
            Some(remedy) => format!("{what}; {remedy}"),
            None => what,
        })
    }

    /// The answer of `/v2/`, if there is one that is no outage.
    async fn look_at_root(&self, clock: &Clock, findings: &mut Findings) -> Option<Answer> {
        findings.begin("/v2/");
        let answer = match self.ask_root(None).await {
            Ok(answer) => answer,
            Err(error) => {
                findings.end(Verdict::bad(error.to_string()));
                return None;
            }
        };
        let clock = clock_verdict(&answer.headers, clock.wall());
        if answer.status.is_server_error() {
            findings.end(Verdict::bad(answer.into_error().await.to_string()));
            findings.note("clock", clock);
            return None;
        }
        findings.end(root_verdict(&answer));
        findings.note("clock", clock);
        Some(answer)
    }

    async fn ask_root(&self, authorization: Option<&Authorization>) -> Result<Answer, Error> {
        let outgoing = Outgoing {
            authorization: authorization.map(Authorization::header),
            ..Outgoing::get(Operation::Probe, self.root.clone())
        };
        redirect::follow(&self.client, outgoing, Redirects::Follow).await
    }

    /// Without an image, what can be seen is whether credentials are taken at all.
    async fn look_at_login(&self, root: Answer, findings: &mut Findings) {
        findings.begin("credentials");
        let (identity, verdict) = self.credentials.explained(None).await;
        findings.end(verdict);
        findings.begin("token");
        let verdict = match root.status {
            StatusCode::UNAUTHORIZED => self.log_in(&root, &identity).await,
            _ => Verdict::skipped(format!("not asked for at /v2/; {NAME_ONE}")),
        };
        findings.end(verdict);
        findings.note("manifest", Verdict::skipped(NAME_ONE));
    }

    async fn log_in(&self, refusal: &Answer, identity: &Identity) -> Verdict {
        let authorization = match self.auth.login(refusal, identity).await {
            Ok(Some(authorization)) => authorization,
            Ok(None) if *identity == Identity::Anonymous => {
                return Verdict::doubtful(
                    "a password is asked for; add username and password_file",
                );
            }
            Ok(None) => return Verdict::bad("refused, with no way to show the credentials"),
            Err(Error::Denied(message)) if *identity == Identity::Anonymous => {
                let what = "denied to the anonymous without a repository";
                return Verdict::skipped(format!("{what} ({message}); {NAME_ONE}"));
            }
            Err(Error::Denied(message)) => return Verdict::bad(format!("{message}; {DOUBT}")),
            Err(error) => return Verdict::bad(error.to_string()),
        };
        if *identity == Identity::Anonymous {
            return Verdict::good(described(&authorization));
        }
        match self.ask_root(Some(&authorization)).await {
            Ok(answer) if answer.status.is_success() => Verdict::good(described(&authorization)),
            Ok(answer) => Verdict::bad(format!("{}; {DOUBT}", answer.into_error().await)),
            Err(error) => Verdict::bad(error.to_string()),
        }
    }

    async fn look_at_image(&self, sample: &SampleImage, findings: &mut Findings) {
        findings.begin("credentials");
        let (identity, verdict) = self.credentials.explained(Some(&sample.name)).await;
        findings.end(verdict);
        let ask = Ask::manifest_head(&sample.name, &sample.reference);
        findings.begin("token");
        let token = self.first_token(&ask, &identity).await;
        let token = token.unwrap_or_else(|error| refusal_verdict(sample, &identity, error));
        let has_failed = token.outcome == Outcome::Bad;
        findings.end(token);
        if has_failed {
            return;
        }
        findings.begin("manifest");
        match self.exchange(&ask).await {
            Ok(answer) => {
                findings.end(head_verdict(sample, &answer));
                if let Some(quota) = Quota::of(&answer.headers) {
                    findings.note("quota", quota_verdict(&quota));
                }
            }
            Err(error) => findings.end(refusal_verdict(sample, &identity, error)),
        }
    }

    /// How the first request of a pull gets its token, if it needs one.
    async fn first_token(&self, ask: &Ask<'_>, identity: &Identity) -> Result<Verdict, Error> {
        let started = Instant::now();
        let scope = self.scope(ask.name);
        let known = self.auth.known(&scope, identity).await?;
        let answer = self.send(ask, known.as_ref()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            let described = known.as_ref().map_or("not asked for".to_owned(), described);
            return Ok(Verdict::good(described));
        }
        let renewed = self.auth.renewed(&answer, &scope, identity, known, started).await?;
        match renewed {
            Some(authorization) => Ok(Verdict::good(described(&authorization))),
            None => Err(answer.into_error().await),
        }
    }

    fn look_at_prefixes(&self, samples: &[SampleImage], findings: &mut Findings) {
        let names: Vec<_> = samples.iter().map(|sample| &sample.name).collect();
        for prefix in self.credentials.untried(&names) {
            let what = format!("those of prefix {prefix} were not tried; name an image below it");
            findings.note("credentials", Verdict::skipped(what));
        }
    }
}

/// Ends a step. `None`: it failed.
fn passed(findings: &mut Findings, step: Result<Verdict, Verdict>) -> Option<()> {
    let passed = step.is_ok().then_some(());
    findings.end(step.unwrap_or_else(|failed| failed));
    passed
}

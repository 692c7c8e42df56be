//! Faults at random: the same for the same seed and the same requests, in whatever order those come.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::{
    super::Random,
    fault::{Fault, Gate},
    http::{Answer, Request},
};

/// Of so many answers …
const OUT_OF: u64 = 1000;

/// … so many fail in this way.
const ODDS: [(Trouble, u64); 9] = [
    (Trouble::Cut, 20),
    (Trouble::Stall, 20),
    (Trouble::Delay, 20),
    (Trouble::ServerError, 20),
    (Trouble::Limit, 20),
    (Trouble::Refusal, 20),
    (Trouble::Redirect, 20),
    (Trouble::Truncation, 20),
    (Trouble::Corruption, 5),
];

/// A path that leads to itself.
const LOOP: &str = "/loop";

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The connection is reset, before the answer or in its body.
    Cut,
    /// Nothing comes any more, from the begin or from somewhere in the body on.
    Stall,
    /// It comes late.
    Delay,
    /// 500.
    ServerError,
    /// 429, with or without a time to wait.
    Limit,
    /// 401, with a challenge that is right, wrong or not there at all.
    Refusal,
    /// 307, back, to another host, round in circles, or to where nobody may go.
    Redirect,
    /// The body is too short, in one of the three ways HTTP has to say where it ends.
    Truncation,
    /// A bit of the body is wrong.
    Corruption,
}

/// A source of faults.
pub(super) struct Chaos {
    seed: u64,
    /// Another registry with the same content.
    elsewhere: String,
    /// How often each thing was asked for, by method, path and whether a range was wanted.
    asked: HashMap<(String, String, bool), u64>,
    dealt: BTreeMap<Trouble, usize>,
}

impl Chaos {
    pub(super) fn new(seed: u64, elsewhere: String) -> Chaos {
        Chaos { seed, elsewhere, asked: HashMap::new(), dealt: BTreeMap::new() }
    }

    pub(super) fn dealt(&self) -> BTreeMap<Trouble, usize> {
        self.dealt.clone()
    }

    /// How this answer to this request fails, if it does.
    pub(super) fn fault(&mut self, request: &Request, answer: &Answer) -> Option<Fault> {
        if request.path == LOOP {
            return Some(redirect(LOOP));
        }
        let mut random = self.random_for(request);
        let trouble = draw(&mut random)?;
        let has_body = request.method != "HEAD" && !answer.body.is_empty();
        let place = has_body.then(|| random.index(answer.body.len()));
        let fault = self.fault_of(trouble, request, answer, place, &mut random)?;
        *self.dealt.entry(trouble).or_default() += 1;
        Some(fault)
    }

    fn random_for(&mut self, request: &Request) -> Random {
        let has_range = request.header("range").is_some();
        let key = (request.method.clone(), request.path.clone(), has_range);
        let mut hasher = DefaultHasher::new();
        let times = self.asked.entry(key.clone()).or_default();
        (self.seed, &key, *times).hash(&mut hasher);
        *times += 1;
        Random::new(hasher.finish())
    }

    /// `place` is somewhere in the body, if there is one.
    fn fault_of(
        &self,
        trouble: Trouble,
        request: &Request,
        answer: &Answer,
        place: Option<usize>,
        random: &mut Random,
    ) -> Option<Fault> {
        let in_body = place.filter(|_| random.below(4) > 0);
        Some(match (trouble, in_body) {
            (Trouble::Cut, Some(place)) => Fault::cut_after(place).and_reset(),
            (Trouble::Cut, None) => Fault::hang_up().and_reset(),
            (Trouble::Stall, Some(place)) => Fault::hold_after(place, &Gate::shut()),
            (Trouble::Stall, None) => Fault::silent(),
            (Trouble::Delay, _) => Fault::delay(Duration::from_millis(50 + random.below(250))),
            (Trouble::ServerError, _) => Fault::status(500).body("<html>Oops</html>"),
            (Trouble::Limit, _) => match random.below(10) {
                0 => Fault::status(429),
                _ => Fault::status(429).header("retry-after", "1"),
            },
            (Trouble::Refusal, _) => self.refusal(random),
            (Trouble::Redirect, _) => redirect(&self.target(request, random)),
            (Trouble::Truncation, _) => place.map_or(Fault::hang_up(), |place| {
                let start = answer.body.slice(..place);
                match random.below(3) {
                    0 => Fault::cut_after(place),
                    1 => Fault::chunked().body(start),
                    _ => Fault::default().body(start),
                }
            }),
            (Trouble::Corruption, _) => {
                let is_content = matches!(answer.status, 200 | 206);
                Fault::flip_byte(place.filter(|_| is_content)?)
            }
        })
    }

    fn refusal(&self, random: &mut Random) -> Fault {
        let refusal = Fault::status(401);
        match random.below(3) {
            0 => refusal,
            1 => refusal.header("www-authenticate", "Basic realm=\"a proxy\""),
            _ => {
                let realm = format!("Bearer realm=\"{}/no-such-realm\"", self.elsewhere);
                refusal.header("www-authenticate", realm)
            }
        }
    }

    fn target(&self, request: &Request, random: &mut Random) -> String {
        let path = &request.path;
        match random.below(6) {
            0 | 1 => format!("{path}?again&{}", request.query),
            2 | 3 => format!("{}{path}", self.elsewhere),
            4 => LOOP.to_owned(),
            _ => "http://169.254.169.254/latest/meta-data".to_owned(),
        }
    }
}

fn draw(random: &mut Random) -> Option<Trouble> {
    let mut number = random.below(OUT_OF);
    for (trouble, odds) in ODDS {
        match number.checked_sub(odds) {
            None => return Some(trouble),
            Some(rest) => number = rest,
        }
    }
    None
}

fn redirect(location: &str) -> Fault {
    Fault::status(307).header("location", location)
}

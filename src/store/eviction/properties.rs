//! What holds of every decision.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};

use super::*;

const NOW: u32 = 1000;

#[derive(Clone, Debug)]
struct Thing {
    /// Seconds.
    last_use: u32,
    rank: u8,
    disk: u64,
    keep: Keep,
}

fn keep() -> impl Strategy<Value = Keep> {
    prop_oneof![
        Just(Keep::Always),
        Just(Keep::WhileThereIsRoom),
        (1..NOW).prop_map(|seconds| Keep::For(Duration::from_secs(seconds.into()))),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    (0..NOW, 0..4u8, 0..50u64, keep()).prop_map(|(last_use, rank, disk, keep)| Thing {
        last_use,
        rank,
        disk,
        keep,
    })
}

fn goal() -> impl Strategy<Value = Goal> {
    let limits = (0..300u64, 0..300u64, 0..=300u64);
    limits.prop_map(|(size, free, part)| Goal { least: size.max(free) * part / 300, size, free })
}

fn unused(thing: &Thing) -> Duration {
    Duration::from_secs((NOW - thing.last_use).into())
}

fn has_expired(thing: &Thing) -> bool {
    matches!(thing.keep, Keep::For(limit) if unused(thing) >= limit)
}

/// The things in the order of their removal, each with the reason.
fn decide(things: &[Thing], goal: Goal, expire_after: Option<Duration>) -> Vec<(Thing, Reason)> {
    let mut of = HashMap::new();
    let mut selection = Selection::new(goal, expire_after);
    for (thing, id) in things.iter().zip((0..).map(Id::at)) {
        of.insert(id, thing);
        let last_use = Moment::from_seconds(thing.last_use);
        let candidate = Candidate { last_use, rank: thing.rank, id, disk: thing.disk };
        selection.consider(candidate, unused(thing), || thing.keep);
    }
    let victims = selection.finish();
    victims
        .into_iter()
        .map(|victim| (of.remove(&victim.id).unwrap().clone(), victim.reason))
        .collect()
}

fn bytes<'a>(things: impl IntoIterator<Item = &'a Thing>) -> u64 {
    things.into_iter().map(|thing| thing.disk).sum()
}

proptest! {
    #[test]
    fn what_goes_is_the_oldest_that_may(things in vec(thing(), 0..40), goal in goal()) {
        let gone = decide(&things, goal, None);
        let mut order: Vec<&Thing> =
            things.iter().filter(|thing| thing.keep != Keep::Always && thing.disk > 0).collect();
        order.sort_by_key(|thing| (thing.last_use, thing.rank));
        let key = |thing: &Thing| (thing.last_use, thing.rank);
        let expected: Vec<_> = order.iter().take(gone.len()).map(|thing| key(thing)).collect();
        prop_assert_eq!(gone.iter().map(|(thing, _)| key(thing)).collect::<Vec<_>>(), expected);

        let possible = bytes(order.iter().copied());
        let all: u64 = bytes(gone.iter().map(|(thing, _)| thing));
        if possible < goal.least {
            prop_assert!(gone.is_empty(), "in vain");
        } else {
            prop_assert!(all >= goal.bytes().min(possible), "{} of {:?}", all, goal);
            let last = gone.last().map_or(0, |(thing, _)| thing.disk);
            prop_assert!(gone.is_empty() || all - last < goal.bytes(), "more than needed");
        }
    }

    #[test]
    fn what_has_expired_goes_whatever_the_goal(
        things in vec(thing(), 0..40),
        goal in goal(),
    ) {
        let gone = decide(&things, goal, Some(Duration::from_secs(1)));
        let expired = |reason: &Reason| *reason == Reason::Expired;
        let (of_age, for_room): (Vec<_>, Vec<_>) =
            gone.iter().cloned().partition(|(_, reason)| expired(reason));
        prop_assert_eq!(of_age.len(), things.iter().filter(|thing| has_expired(thing)).count());
        prop_assert!(gone.iter().all(|(thing, _)| thing.keep != Keep::Always));
        let of_age = bytes(of_age.iter().map(|(thing, _)| thing));
        if of_age >= goal.bytes() {
            prop_assert!(for_room.is_empty(), "expiry was enough");
        }
    }

    #[test]
    fn the_reason_is_the_limit_that_asked(things in vec(thing(), 0..40), goal in goal()) {
        let mut before = 0;
        for (thing, reason) in decide(&things, goal, None) {
            prop_assert_eq!(reason == Reason::Size, before < goal.size);
            before += thing.disk;
        }
    }
}

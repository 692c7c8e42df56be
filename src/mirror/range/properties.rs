//! Ranges against RFC 9110, § 14, by looking at every byte of a small blob.

use proptest::{collection::vec, prelude::*, sample::select, string::string_regex};

use super::{ByteRanges, RangeError};
use crate::properties::{assert_same, nearly};

/// The bytes of each part, by their places.
type Parts = Result<Vec<Vec<u64>>, RangeError>;

#[test]
fn each_byte_is_in_the_parts_that_ask_for_it() {
    assert_same(
        (nearly(headers(), "0129-,= \t+a"), 0..20_u64),
        |(header, size)| {
            let parts = ByteRanges::parse(header)?.resolve(*size);
            Some(parts.map(|parts| parts.into_iter().map(Iterator::collect).collect()))
        },
        |(header, size)| Some(parts_of(&members_of(header)?, *size)),
    );
}

/// First and last byte, or nothing and how many bytes of the end.
type Member = (Option<u128>, Option<u128>);

/// `None`: the header is not understood.
fn members_of(header: &str) -> Option<Vec<Member>> {
    let unit = header.get(..6).filter(|unit| unit.to_lowercase() == "bytes=")?;
    let members: Vec<&str> = header[unit.len()..]
        .split(',')
        .map(|member| member.trim_start_matches([' ', '\t']).trim_end_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    let members: Vec<Member> = members.into_iter().map(member).collect::<Option<_>>()?;
    (!members.is_empty()).then_some(members)
}

fn member(text: &str) -> Option<Member> {
    let is_of_member = |letter: char| letter == '-' || letter.is_ascii_digit();
    let parts: Vec<&str> = text.split('-').collect();
    let [first, last] = parts.as_slice() else {
        return None;
    };
    let member = (first.parse().ok(), last.parse().ok());
    (text.chars().all(is_of_member) && member != (None, None)).then_some(member)
}

fn parts_of(members: &[Member], size: u64) -> Parts {
    if members.len() > 1024 {
        return Err(RangeError::TooMany);
    }
    let is_wanted = |member: &Member, place: u128| match *member {
        (None, length) => u128::from(size) - place <= length.unwrap_or_default(),
        (Some(first), None) => place >= first,
        (Some(first), Some(last)) => (first..=last).contains(&place),
    };
    let bytes = |member| (0..size).filter(move |place| is_wanted(member, u128::from(*place)));
    let parts: Vec<Vec<u64>> = members
        .iter()
        .map(|member| bytes(member).collect())
        .filter(|it: &Vec<_>| !it.is_empty())
        .collect();
    let times = |place: u64| parts.iter().flatten().filter(|byte| **byte == place).count();
    match (parts.is_empty(), (0..size).any(|place| times(place) > 1)) {
        (true, _) => Err(RangeError::Unsatisfiable),
        (false, true) => Err(RangeError::Overlapping),
        (false, false) => Ok(parts),
    }
}

/// Headers that are understood.
fn headers() -> impl Strategy<Value = String> {
    let unit = select(vec!["bytes=", "bytes=", "Bytes="]);
    let member = string_regex("[0-9]{1,2}-[0-9]{0,2}|-[0-9]{1,2}|1-9{30}|-9{30}").unwrap();
    let comma = select(vec![",", ", ", " ,", ",,", "\t,"]);
    let few = vec((member, comma), 1..4);
    let few = few.prop_map(|members| members.into_iter().map(|(it, comma)| it + comma).collect());
    let many = (1020..1030_usize).prop_map(|count| "3-3,".repeat(count));
    (unit, prop_oneof![40 => few, 1 => many])
        .prop_map(|(unit, members): (_, String)| unit.to_owned() + &members)
}

//! Lists of referrers: what was a list is one when Larder writes it, filtered or not.
#![no_main]

use larder::oci::Referrers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some((mut referrers, _)) = Referrers::parse(body) else {
        return;
    };
    assert!(is_well_formed(&referrers));
    referrers.retain("a/b");
    assert!(is_well_formed(&referrers));
});

fn is_well_formed(referrers: &Referrers) -> bool {
    matches!(Referrers::parse(&referrers.to_json()), Some((_, true)))
}

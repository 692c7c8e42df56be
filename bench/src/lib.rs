//! What the programs of the bench share.

pub mod machine;
pub mod results;

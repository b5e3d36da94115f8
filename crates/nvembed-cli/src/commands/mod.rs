//! The commands, a file each. None imports another.

mod advice;
pub(crate) mod bench;
pub(crate) mod corpus;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod prepare;
pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod verify;

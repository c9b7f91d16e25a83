//! Keeps every VM's view of the snapshot current.
//!
//! Each VM's root context ticks. They compete for one [`lease`]; the holder polls the refresher
//! ([`poll`]) and writes what comes into shared data ([`publish`]); all of them read it from
//! there when it moved ([`follow`]). What attempts learn lies on the [`board`] and, of quotas, in
//! [`quota`]; it goes to the refresher as [`report`]s, and comes back from there for all Envoys.
//! What requests used goes there as [`records`], and with them how many have begun.

pub mod board;
pub mod confirmed;
pub mod follow;
pub mod lease;
pub mod poll;
pub mod publish;
pub mod queues;
pub mod quota;
pub mod records;
pub mod report;
pub mod unread;

#[cfg(test)]
mod tests;

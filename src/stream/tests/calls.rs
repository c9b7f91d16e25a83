//! Calls to the refresher to which no answer comes: their root is gone, with a listener that was replaced.

use super::{
    Vm,
    envoy::{Envoy, records},
};
use crate::snapshot::fixture;

fn envoy() -> Envoy {
    let mut envoy = Envoy::with(&records(&[fixture::account("acc_1", "codex")]));
    envoy.after(600);
    envoy
}

fn polls(envoy: &Envoy) -> usize {
    envoy.host.take_calls("/snapshot").len()
}

#[test]
fn where_its_root_is_gone_the_next_tick_polls_anew() {
    let mut envoy = envoy();
    assert_eq!(polls(&envoy), 1);
    envoy.after(100);
    assert_eq!(polls(&envoy), 0, "one is under way");
    envoy.take(Vm::lose_calls);
    envoy.after(100);
    assert_eq!(polls(&envoy), 1);
    envoy.after(100);
    assert_eq!(polls(&envoy), 0);
}

#[test]
fn a_poll_is_lost_a_second_after_its_time() {
    let mut envoy = envoy();
    assert_eq!(polls(&envoy), 1);
    // It was sent 600 ms ago, waits 25 s at the refresher, and has 5 s more.
    for _ in 0..303 {
        envoy.after(100);
        assert_eq!(polls(&envoy), 0);
    }
    envoy.after(100);
    assert_eq!(polls(&envoy), 1);
}

#[test]
fn the_answer_to_a_call_that_was_given_up_is_passed_over() {
    let mut envoy = envoy();
    let late = envoy.host.take_calls("/snapshot").pop().unwrap();
    envoy.take(Vm::lose_calls);
    envoy.after(100);
    assert_eq!(polls(&envoy), 1);
    envoy.take(|vm| vm.on_call_answer(1, late.id, b"503", Vec::new));
    envoy.after(600);
    assert_eq!(polls(&envoy), 0, "the one that was made anew is under way");
}

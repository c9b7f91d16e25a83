//! Answers of the gate itself, and facts that outlive a VM.

use super::envoy::{BODY, Envoy, head};
use crate::{
    host::{Action, Host, Side, fake::FakeStream},
    snapshot::fixture,
    stream::{Event, Role, Turns},
};

fn two() -> Envoy {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    Envoy::with_accounts(&accounts)
}

#[test]
fn nobody_gets_in_without_a_key_and_no_key_goes_on() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses")[..4]);
    call.is_refused(401, "latchkey_no_key");
    let mut wrong = head("/v1/responses");
    wrong[4].1 = "Bearer lk_other";
    envoy.call(&wrong).is_refused(401, "latchkey_unknown_key");

    let mut forged = head("/v1/responses").to_vec();
    forged.extend([
        ("x-latchkey-cluster", "other"),
        ("x-envoy-original-url", "http://gateway:8080/v1/responses"),
        ("chatgpt-account-id", "forged"),
    ]);
    let mut call = envoy.call(&forged);
    call.sends(BODY, true);
    call.is_at("acc_1");
    assert_eq!(
        call.header("chatgpt-account-id").as_deref(),
        Some("ws-acc_1")
    );
    assert_eq!(
        call.header("x-latchkey-cluster"),
        None,
        "nothing of ours goes out"
    );
}

#[test]
fn without_a_snapshot_nothing_goes_out() {
    let mut envoy = Envoy::with(&[]);
    envoy.ask().is_refused(401, "latchkey_unknown_key");
}

#[test]
fn the_clock_is_read_once_a_callback() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses"));
    envoy.host.clock_reads.set(0);
    call.sends(BODY, true);
    assert_eq!(envoy.host.clock_reads.take(), 1, "at the gate alone");
    call.platform(200, &[], b"{}");
    assert_eq!(envoy.host.clock_reads.take(), 1, "judged and recorded");
    call.gets(200, b"{}");
    assert_eq!(envoy.host.clock_reads.take(), 0);
}

#[test]
fn a_new_vm_knows_what_the_last_one_did() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.platform(429, &[("retry-after", "60")], b"{}");
    call.is_at("acc_2");
    let mut next = envoy.new_vm();
    next.ask().is_at("acc_2");
    // The request under way goes on in its own VM.
    call.platform(200, &[], b"{}");
    call.gets(200, b"{}");
    assert_eq!(envoy.records().len(), 1);
}

#[test]
fn a_callback_inside_another_changes_nothing_and_loses_nothing() {
    let host = two().host;
    let vm = Turns::new(host.clone());
    let mut stream = FakeStream::default();
    vm.take(|vm| {
        vm.configure(None).unwrap();
    });
    vm.on(Role::Gate, 5, Event::RequestTrailers, &mut stream);
    let inside = vm.take(|_| {
        let event = Event::RequestHeaders { end: false };
        let action = vm.on(Role::Gate, 7, event, &mut stream);
        vm.end(Role::Gate, 5, &mut stream);
        action
    });
    assert_eq!(inside, Some(Action::Pause));
    assert!(stream.state().reply.is_none());
    assert!(vm.take(|vm| vm.gates.is_empty()).unwrap(), "5 has ended");
    assert!(host.clone().enter(5).is_none() && Side::Request != Side::Answer);
}

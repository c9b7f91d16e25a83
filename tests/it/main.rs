//! End-to-end tests: the real Envoy with the real filter, the real refresher, and real clients, against the simulated
//! platform. `make e2e` builds and finds all of these and says where they are in the environment:
//!
//! | variable | what |
//! |---|---|
//! | `LATCHKEY_ENVOY`, `LATCHKEY_WASM` | Envoy and the filter |
//! | `LATCHKEY_FAULTY_WASM` | the filter, built so that a test can crash its VM |
//! | `LATCHKEY_REFRESHER`, `LATCHKEY_SIM` | the refresher's and the simulated platform's programs |
//! | `LATCHKEY_CLIENTS` | the folder of the real clients |
//!
//! Each test states in its name what must hold; a figure in a test is the target that the project promises.

/// The means by which everything is started, watched and ended.
mod harness;

/// The answers that callers get, and the requests that the platform sees.
mod callers;

/// The real clients: SDKs, and the programs that people start.
mod clients;

/// The gateway's refusals, as the real clients show them.
mod client_refusals;
mod client_sentences;

/// Callers of one dialect at platforms of another.
mod translated;

/// Models that others serve, and what is demanded of requests.
mod maps;

/// The programs that people start, each on accounts of every other dialect.
mod programs;

/// The things that callers cannot do: raw sockets, forged headers, smuggling, and platforms that answer with traps.
mod hostile;

/// The laws of safety, each tried by its attacks.
mod laws;

/// The behaviour when a part dies, is late, or sends what it never should.
mod faults;

/// Tokens are refreshed in time, once, and survive crashes and bad token endpoints.
mod credential_life;

/// The cost of a crash of the refresher at each point of a refresh.
mod kills;

/// The refresher's clock is not always right.
mod clock;

/// What an operator asks at the command line, answered by the platform.
mod operator;

/// The ways in that need no browser on this machine.
mod logins;

/// A Claude subscription, by the login of Claude Code.
mod claude_login;
mod code_assist;

/// Logins in a real browser.
mod browsers;

/// Logins at an identity provider that is not ours.
mod foreign_provider;

/// Accounts that leave by proxies of their own.
mod egress;

/// Logins that ended are renewed by opening a URL.
mod pending_logins;

/// The sealing key in the keyring of a desktop's session.
mod keyring;

/// The network on the ways out is bad.
mod network;

/// Data at rest survives crashes and a full disk, and is refused where it is not as it should be.
mod store;

/// The shipped configurations of Envoy.
mod config;

/// The images that the containers are made of.
mod images;

/// Platforms that an operator adds.
mod profiles;

/// Every platform that we ship, by the form of its requests.
mod platforms;

/// The first version of Baidu's chat.
mod ernie;

/// One test for each bug that was found and is to stay away.
mod regression;

/// The README's commands and configurations.
mod docs;

/// The stand-in for curl.
mod curl;

/// The demo.
mod demo;

/// Where no secret may be.
mod canary;

/// The things that every supported Envoy must do; run on each of them.
mod smoke;

/// Chaos for minutes, after which every count must agree.
mod soak;

/// Accounts fail, and callers do not notice.
mod failover;

/// Failover where answers are slow, early or odd.
mod failover_edges;

/// The figures of failover under load.
mod figures;

/// The choice of the account that serves a request.
mod selection;

/// Everything that one Envoy learns about an account stays known.
mod board;

/// The cost of a crash of the filter.
mod crash;

/// The use of requests is counted, and nothing of what passes is changed or late for it.
mod metering;

/// Requests are recorded once or known to be unrecorded, whoever dies.
mod lost;

/// The limits of what accounts and client keys may use, and no more.
mod limits;

//! `sim`: runs the simulated platform. See the crate's documentation.

use std::{error::Error, fs, io::Read, net::Ipv4Addr, path::PathBuf, thread};

use clap::Parser;
use serde_json::json;
use sim::{
    control, profiles,
    server::{self, Shared},
    simulation::Simulation,
    tls,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

/// Runs the simulated platform; prints one line of JSON when it is ready.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where `ca.pem` and `platforms/*.toml` are written
    #[arg(long)]
    dir: PathBuf,
    /// Port of the platform on 127.0.0.1; 0: the system chooses
    #[arg(long, default_value_t = 0)]
    tls_port: u16,
    /// Port of the control API on 127.0.0.1; 0: the system chooses
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// Exit when stdin closes, so that nothing outlives the process that started this one
    #[arg(long)]
    exit_with_stdin: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let platform = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.tls_port)).await?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.control_port)).await?;
    let tls_port = platform.local_addr()?.port();

    let (config, ca_pem) = tls::server_config()?;
    fs::create_dir_all(&arguments.dir)?;
    let directory = arguments.dir.canonicalize()?;
    let (ca_file, platforms_dir) = (directory.join("ca.pem"), directory.join("platforms"));
    let base_url = format!("https://127.0.0.1:{tls_port}");
    fs::write(&ca_file, ca_pem)?;
    profiles::write(&platforms_dir, &base_url, &ca_file)?;

    let authorities = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{tls_port}"));
    let shared = Shared::new(Simulation::new(rand::random(), authorities.to_vec()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stdin_closed = arguments.exit_with_stdin.then(stdin_closed);

    println!(
        "{}",
        json!({
            "tls": base_url,
            "control": format!("http://{}", control.local_addr()?),
            "ca_file": ca_file,
            "platforms_dir": platforms_dir,
        })
    );
    tokio::select! {
        () = server::serve(platform, TlsAcceptor::from(config), shared.clone()) => {}
        served = axum::serve(control, control::router(shared)) => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(_) = async { Some(stdin_closed?.await) } => {}
    }
    Ok(())
}

/// Completes when stdin is at its end. A thread of its own: the runtime waits for its own at exit.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let mut scratch = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut scratch), Ok(1..)) {}
        sender.send(()).ok();
    });
    receiver
}

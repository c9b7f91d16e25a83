//! `sim`: runs the simulated platform. See the crate's documentation.

use std::{error::Error, fs, io::Read, net::Ipv4Addr, path::PathBuf, thread};

use clap::Parser;
use serde_json::json;
use sim::{
    control, kept, profiles,
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
    /// The folder into which `ca.pem`, `server.pem` and `platforms/*.toml` are written
    #[arg(long)]
    dir: PathBuf,
    /// The address that it listens on
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    listen: Ipv4Addr,
    /// The name under which clients reach the platform; its certificate has it
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the platform; 0: the system chooses
    #[arg(long, default_value_t = 0)]
    tls_port: u16,
    /// Port of the control API; 0: the system chooses
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// Port of the login pages without TLS, for a browser that reaches them at localhost
    #[arg(long)]
    pages_port: Option<u16>,
    /// Keep the certificate, the users and their logins in the directory over restarts
    #[arg(long)]
    keep: bool,
    /// Exit when stdin closes, so that nothing outlives the process that started this one
    #[arg(long)]
    exit_with_stdin: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let listen = arguments.listen;
    let platform = TcpListener::bind((listen, arguments.tls_port)).await?;
    let control = TcpListener::bind((listen, arguments.control_port)).await?;
    let pages = match arguments.pages_port {
        Some(port) => Some(TcpListener::bind((listen, port)).await?),
        None => None,
    };
    let tls_port = platform.local_addr()?.port();

    fs::create_dir_all(&arguments.dir)?;
    let directory = arguments.dir.canonicalize()?;
    let (ca_file, platforms_dir) = (directory.join(tls::CA_FILE), directory.join("platforms"));
    tls::write(&directory, &arguments.host, arguments.keep)?;
    let config = tls::server_config(&directory)?;
    let base_url = format!("https://{}:{tls_port}", arguments.host);
    let pages_url = match &pages {
        Some(pages) => Some(format!("http://localhost:{}", pages.local_addr()?.port())),
        None => None,
    };
    profiles::write(&platforms_dir, &base_url, pages_url.as_deref(), &ca_file)?;

    let hosts = ["127.0.0.1", "localhost", arguments.host.as_str()];
    let authorities = hosts.map(|host| format!("{host}:{tls_port}"));
    let mut simulation = Simulation::new(rand::random(), authorities.to_vec());
    let kept = arguments.keep.then(|| directory.join("kept.json"));
    if let Some(kept) = &kept {
        kept::load(kept, &mut simulation)?;
    }
    let shared = Shared::new(simulation, kept.as_deref());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stdin_closed = arguments.exit_with_stdin.then(stdin_closed);

    println!(
        "{}",
        json!({
            "tls": base_url,
            "control": format!("http://{}", control.local_addr()?),
            "pages": pages_url,
            "ca_file": ca_file,
            "platforms_dir": platforms_dir,
        })
    );
    tokio::select! {
        () = server::serve(platform, TlsAcceptor::from(config), shared.clone()) => {}
        Some(()) = async {
            server::serve_pages(pages?, shared.clone()).await;
            Some(())
        } => {}
        served = axum::serve(control, control::router(shared.clone())) => served?,
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

//! A certificate authority, and the server's certificate.

use std::{error::Error, fs, io, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The names that every server's certificate is good for.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// The CA's certificate, which its clients trust.
pub const CA_FILE: &str = "ca.pem";
/// The server's certificate and key.
const SERVER_FILE: &str = "server.pem";

/// Makes both files in `directory`, for a server that is on loopback and has the name `host`. Where they are there and
/// `keep` is set they stay, so that clients go on trusting the server after its restart.
///
/// # Errors
/// Those of writing, and of the library that signs.
pub fn write(directory: &Path, host: &str, keep: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (ca_file, server_file) = (directory.join(CA_FILE), directory.join(SERVER_FILE));
    if keep && ca_file.exists() && server_file.exists() {
        return Ok(());
    }
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name
        .push(DnType::CommonName, "Latchkey simulated platform CA");
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let mut names = LOOPBACK.map(String::from).to_vec();
    if !LOOPBACK.contains(&host) {
        names.push(host.to_owned());
    }
    let mut server = CertificateParams::new(names)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "Latchkey simulated platform");
    server.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &issuer)?;
    let server_pem = certificate.pem() + &server_key.serialize_pem();
    replace(&server_file, &server_pem)?;
    Ok(replace(&ca_file, &ca_pem)?)
}

/// A server configuration (HTTP/2 and HTTP/1.1) with the files of that directory.
///
/// # Errors
/// Those of reading, and where the files are not what [`write`] wrote.
pub fn server_config(directory: &Path) -> Result<Arc<ServerConfig>, Box<dyn Error + Send + Sync>> {
    let file = directory.join(SERVER_FILE);
    let certificate = CertificateDer::from_pem_file(&file)?;
    let key = PrivateKeyDer::from_pem_file(&file)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

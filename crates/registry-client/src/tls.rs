//! Whom we trust: the system's authorities, and those that the user gave docker for one registry.
//!
//! Docker's folder of a registry, `certs.d/HOST`, has authorities in `*.crt`, and pairs of a client certificate
//! `NAME.cert` with its key `NAME.key` (docker's manual, "Verify repository client with certificates").

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tls_trust::AnyCertificate;

use crate::error::RegistryTrouble;

/// What is known about one registry's certificates.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    /// What these folders have for a host, such as `/etc/docker/certs.d`: the first that has a folder for it counts.
    pub(crate) fn of(folders: &[PathBuf], host: &str) -> Result<Self, RegistryTrouble> {
        for folder in folders {
            let folder = folder.join(host);
            match fs::read_dir(&folder) {
                Ok(entries) => {
                    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                    paths.sort();
                    return Self::read(&paths);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(unreadable(&folder, &error)),
            }
        }
        Ok(Self::default())
    }

    fn read(paths: &[PathBuf]) -> Result<Self, RegistryTrouble> {
        let mut found = Self::default();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.extend(certificates(path)?),
                Some("cert") if found.client.is_none() => {
                    let key = path.with_extension("key");
                    let pair = PrivateKeyDer::from_pem_file(&key).map_err(|error| unreadable(&key, &error))?;
                    found.client = Some((certificates(path)?, pair));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// A configuration that trusts the system's authorities and these. `with_client` shows the client certificate,
    /// which is a login, too.
    pub(crate) fn verified(&self, system: &RootCertStore, with_client: bool) -> Result<ClientConfig, RegistryTrouble> {
        let mut roots = system.clone();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(wrong)?;
        }
        let builder = tls_trust::client().map_err(wrong)?.with_root_certificates(roots);
        Ok(match &self.client {
            Some((certificates, key)) if with_client => builder
                .with_client_auth_cert(certificates.clone(), key.clone_key())
                .map_err(wrong)?,
            _ => builder.with_no_client_auth(),
        })
    }

    /// A configuration that trusts anybody, for a registry that is spoken to without TLS otherwise.
    pub(crate) fn unverified(&self) -> Result<ClientConfig, RegistryTrouble> {
        let builder = tls_trust::client()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()));
        Ok(match &self.client {
            Some((certificates, key)) => builder
                .with_client_auth_cert(certificates.clone(), key.clone_key())
                .map_err(wrong)?,
            None => builder.with_no_client_auth(),
        })
    }
}

/// The system's authorities. Single ones that can't be read are left out, as other programs do.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryTrouble> {
    tls_trust::certificates(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> RegistryTrouble {
    RegistryTrouble::invalid(format!("{} can't be read: {error}", file.display()))
}

fn wrong(error: rustls::Error) -> RegistryTrouble {
    RegistryTrouble::invalid(format!("its certificates can't be used: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::ServerConfig;
    use rustls::pki_types::ServerName;
    use rustls::server::WebPkiClientVerifier;
    use tls_trust::provider;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/samples");
    const HOST: &str = "reg.example:5000";

    /// A folder like docker's, with these samples for the host.
    fn folder(samples: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(HOST);
        fs::create_dir(&place).unwrap();
        for sample in samples {
            fs::copy(format!("{SAMPLES}/{sample}"), place.join(sample)).unwrap();
        }
        folder
    }

    fn known(samples: &[&str]) -> Result<Certificates, RegistryTrouble> {
        Certificates::of(&[PathBuf::from("/nowhere"), folder(samples).path().to_owned()], HOST)
    }

    /// Whether a registry that wants a client certificate, if `wants_client`, and we come to an understanding.
    async fn shake_hands(ours: ClientConfig, wants_client: bool) -> io::Result<()> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match wants_client {
            true => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(Path::new(&format!("{SAMPLES}/ca.crt"))).unwrap() {
                    roots.add(authority).unwrap();
                }
                builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                        .build()
                        .unwrap(),
                )
            }
            false => builder.with_no_client_auth(),
        };
        let chain = certificates(Path::new(&format!("{SAMPLES}/server.crt"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{SAMPLES}/server.key")).unwrap();
        let theirs = builder.with_single_cert(chain, key).unwrap();
        let (here, there) = duplex(64 * 1024);
        let server = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(Arc::new(theirs)).accept(there).await?;
            stream.write_all(b"x").await?;
            stream.shutdown().await
        });
        let name = ServerName::try_from("reg.example").unwrap();
        let mut stream = TlsConnector::from(Arc::new(ours)).connect(name, here).await?;
        // With TLS 1.3 a client learns only now that its certificate is refused.
        let mut word = [0];
        stream.read_exact(&mut word).await?;
        server.await.unwrap()
    }

    #[tokio::test]
    async fn the_authority_in_dockers_folder_is_trusted_and_no_other() {
        let nobody = RootCertStore::empty();
        let with = known(&["ca.crt"]).unwrap().verified(&nobody, true).unwrap();
        shake_hands(with, false).await.unwrap();
        let without = known(&[]).unwrap().verified(&system_roots(), true).unwrap();
        shake_hands(without, false).await.unwrap_err();
        let lax = known(&[]).unwrap().unverified().unwrap();
        shake_hands(lax, false).await.unwrap();
    }

    #[tokio::test]
    async fn the_client_certificate_is_shown_to_the_registry_alone() {
        let nobody = RootCertStore::empty();
        let certificates = known(&["ca.crt", "client.cert", "client.key"]).unwrap();
        shake_hands(certificates.verified(&nobody, true).unwrap(), true)
            .await
            .unwrap();
        shake_hands(certificates.verified(&nobody, false).unwrap(), true)
            .await
            .unwrap_err();
    }

    #[test]
    fn a_certificate_without_its_key_is_named() {
        let trouble = known(&["client.cert"]).unwrap_err();
        assert!(trouble.what.contains("client.key can't be read"), "{trouble:?}");
    }
}

//! Mail to whose content it is: a scheduled report failed, or is done.

use std::time::Duration;

use lettre::message::{Mailbox, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::config::node::{Mail, MailTls};
use crate::node::parts::Parts;
use crate::node::store::ContentRow;

/// For the server to answer each time.
const PATIENCE: Duration = Duration::from_secs(30);
/// For all of it.
const PATIENCE_ALL: Duration = Duration::from_secs(120);

/// What is to be said.
#[derive(Debug)]
pub struct Letter {
    subject: String,
    text: String,
}

impl Letter {
    /// A scheduled report failed.
    pub fn failed(parts: &Parts, content: &ContentRow, why: &str, said: &str) -> Self {
        let title = title(content);
        let link = link(parts, &format!("/connect/content/{}/logs", content.guid));
        Self {
            subject: format!("Failed: {title}"),
            text: format!(
                "The scheduled report \"{title}\" could not be rendered:\n\n{why}\n\nWhat it said last:\n\n{said}\n\n\
                 What was shown before is still shown.\n{link}\n"
            ),
        }
    }

    /// A report is done.
    pub fn done(parts: &Parts, content: &ContentRow, number: i64) -> Self {
        let title = title(content);
        let link = link(parts, &format!("/content/{}/_rev{number}/", content.guid));
        Self { subject: title.clone(), text: format!("The report \"{title}\" was rendered.\n{link}\n") }
    }
}

fn title(content: &ContentRow) -> String {
    if content.title.is_empty() { content.name.clone() } else { content.title.clone() }
}

/// Where only we know our address nobody else is told one.
fn link(parts: &Parts, path: &str) -> String {
    parts.settings.external_url.as_ref().map(|url| format!("\n{url}{path}\n")).unwrap_or_default()
}

/// Sends a letter to whose content it is; to whom. `None`: nobody sends mail here, or they have no address.
///
/// # Errors
/// Why it cannot be sent, in a sentence.
pub async fn send(parts: &Parts, content: &ContentRow, letter: Letter) -> Result<Option<String>, String> {
    let Some(mail) = &parts.settings.mail else { return Ok(None) };
    let owner = parts.store.user(&content.owner).await.map_err(|e| e.to_string())?;
    let Some(owner) = owner.filter(|owner| !owner.email.is_empty() && owner.locked_at.is_none()) else {
        return Ok(None);
    };
    let address = |text: &str| text.parse::<Mailbox>().map_err(|e| format!("`{text}` is no mail address: {e}"));
    let message = Message::builder()
        .from(address(&mail.from)?)
        .to(address(&owner.email)?)
        // Nobody's holiday answers (RFC 3834 §5).
        .raw_header(header::HeaderValue::new(
            header::HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .subject(letter.subject)
        .header(header::ContentType::TEXT_PLAIN)
        .body(letter.text)
        .map_err(|e| e.to_string())?;
    let transport = transport(mail)?;
    let sent = tokio::time::timeout(PATIENCE_ALL, transport.send(message)).await;
    let server = format!("{}:{}", mail.server, mail.port);
    sent.map_err(|_| format!("the mail server {server} takes too long"))?
        .map_err(|e| format!("the mail server {server}: {}", crate::telemetry::Causes(&e)))?;
    Ok(Some(owner.email))
}

fn transport(mail: &Mail) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let tls = || {
        let mut parameters = TlsParameters::builder(mail.server.clone());
        if let Some(path) = &mail.ca_file {
            let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let certificate = Certificate::from_pem(&pem).map_err(|e| format!("{}: {e}", path.display()))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build_rustls().map_err(|e| e.to_string())
    };
    let tls = match mail.tls {
        MailTls::Starttls => Tls::Required(tls()?),
        MailTls::Tls => Tls::Wrapper(tls()?),
        MailTls::None => Tls::None,
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.server)
        .port(mail.port)
        .tls(tls)
        .timeout(Some(PATIENCE));
    if let Some((username, file)) = &mail.login {
        let password = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        transport = transport.credentials(Credentials::new(username.clone(), password.trim_end().to_owned()));
    }
    Ok(transport.build())
}

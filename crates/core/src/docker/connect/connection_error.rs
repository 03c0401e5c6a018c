//! Why a connection to an engine broke, in words for the user. Libraries name their own parts ("unexpected EOF during chunk size
//! line", `tonic::transport::Error(...)`), which help nobody.

use std::error::Error;
use std::io;

use super::stream::Noise;

/// Any error.
pub(in crate::docker) type BoxError = Box<dyn Error + Send + Sync>;

/// The agent of a dock answers in the engine's place: the dock, or its engine, can't be reached.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(in crate::docker) struct DockDown {
    /// Its own words, with a hint.
    pub(in crate::docker) message: String,
}

/// How a broken connection is described to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::docker) enum Broken {
    #[error("the connection was closed in the middle")]
    Closed,
    #[error("the connection was reset")]
    Reset,
    #[error("no answer came in time")]
    Silent,
    #[error("what it says is not HTTP")]
    Nonsense,
}

/// The cause in words for the user. One that is clear by itself stays as it is.
pub(in crate::docker) fn told(cause: BoxError) -> BoxError {
    let mut link: Option<&(dyn Error + 'static)> = Some(&*cause);
    let mut is_of_library = false;
    while let Some(error) = link {
        if let Some(down) = of_agent(error) {
            return Box::new(DockDown {
                message: down.message.clone(),
            });
        }
        if let Some(broken) = broken(error) {
            return Box::new(broken);
        }
        is_of_library |= error.is::<hyper::Error>()
            || error.is::<hyper_util::client::legacy::Error>()
            || error.is::<tonic::transport::Error>();
        link = error.source();
    }
    // A library's words are about its own parts, and the innermost error says most.
    match is_of_library {
        true => innermost(cause),
        false => cause,
    }
}

/// The agent's refusal, also inside an [`io::Error`]: its `source` skips its own content.
pub(in crate::docker) fn of_agent<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DockDown> {
    if let Some(down) = error.downcast_ref() {
        return Some(down);
    }
    match error.downcast_ref::<bollard::errors::Error>() {
        Some(bollard::errors::Error::IOError { err }) => of_agent(err),
        _ => error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref(),
    }
}

/// What a login shell printed in the engine's place.
pub(in crate::docker) fn noise<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a Noise> {
    let mut link = Some(cause);
    while let Some(error) = link {
        // The `source` of an `io::Error` skips its own content.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(noise) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(noise);
        }
        link = error.source();
    }
    None
}

fn broken(error: &(dyn Error + 'static)) -> Option<Broken> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => Some(Broken::Closed),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Some(Broken::Reset)
            }
            io::ErrorKind::TimedOut if error.get_ref().is_none() => Some(Broken::Silent),
            _ => error
                .get_ref()
                .and_then(|inner| broken(inner as &(dyn Error + 'static))),
        };
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Some(Broken::Closed);
        }
        if error.is_timeout() {
            return Some(Broken::Silent);
        }
        if error.is_parse() {
            return Some(Broken::Nonsense);
        }
    }
    let status = error.downcast_ref::<tonic::Status>()?;
    // The library makes such a status itself where the connection broke; what the engine says has no source.
    status.source()?;
    let inner = status.source().into_iter().find_map(broken);
    Some(inner.unwrap_or(Broken::Closed))
}

fn innermost(cause: BoxError) -> BoxError {
    let mut text = cause.to_string();
    let mut link = cause.source();
    while let Some(error) = link {
        text = error.to_string();
        link = error.source();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(cause: impl Into<BoxError>) -> String {
        told(cause.into()).to_string()
    }

    #[test]
    fn a_person_is_told_nothing_of_a_librarys_insides() {
        let inside = || io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF during chunk size line");
        assert_eq!(says(inside()), "the connection was closed in the middle");
        assert_eq!(
            says(io::Error::other(inside())),
            "the connection was closed in the middle"
        );
        assert_eq!(
            says(tonic::Status::from_error(Box::new(inside()))),
            "the connection was closed in the middle"
        );
        assert_eq!(
            says(io::Error::from(io::ErrorKind::BrokenPipe)),
            "the connection was reset"
        );
        // A text that was written for people.
        assert_eq!(
            says("it has been silent for too long"),
            "it has been silent for too long"
        );
        assert_eq!(says(io::Error::other("no such thing")), "no such thing");
    }

    #[test]
    fn the_agents_own_words_are_found_wherever_they_are() {
        let down = || DockDown {
            message: "dock \"far\" can't be reached".into(),
        };
        let wrapped = bollard::errors::Error::IOError {
            err: io::Error::other(down()),
        };
        assert!(of_agent(&wrapped).is_some());
        assert_eq!(says(wrapped), "dock \"far\" can't be reached");
        assert!(of_agent(&io::Error::other("else")).is_none());
    }
}

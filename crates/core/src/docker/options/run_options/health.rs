//! `--health-*` and `--no-healthcheck`.

use bollard::models::HealthConfig;

use super::error::{GivenOption, OptionError};
use crate::docker::options::go_values;

/// The options of the health check.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Health {
    disabled: Option<GivenOption>,
    /// Only what differs from docker's zero values, which mean the image's own.
    check: HealthConfig,
    first: Option<GivenOption>,
}

impl Health {
    pub(super) fn disable(&mut self, entry: GivenOption) {
        self.disabled = entry.on.then_some(entry);
    }

    pub(super) fn command(&mut self, entry: GivenOption) {
        let command = entry.value.clone();
        self.check.test = (!command.is_empty()).then(|| vec!["CMD-SHELL".to_owned(), command]);
        self.first.get_or_insert(entry);
    }

    pub(super) fn interval(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        self.check.interval = self.positive(entry, go_values::duration)?;
        Ok(())
    }

    pub(super) fn timeout(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        self.check.timeout = self.positive(entry, go_values::duration)?;
        Ok(())
    }

    pub(super) fn start_period(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        self.check.start_period = self.positive(entry, go_values::duration)?;
        Ok(())
    }

    pub(super) fn start_interval(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        self.check.start_interval = self.positive(entry, go_values::duration)?;
        Ok(())
    }

    pub(super) fn retries(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        self.check.retries = self.positive(entry, go_values::integer)?;
        Ok(())
    }

    fn positive(
        &mut self,
        entry: GivenOption,
        read: fn(&str) -> Result<i64, String>,
    ) -> Result<Option<i64>, OptionError> {
        let value = entry.read(read)?;
        if value < 0 {
            return Err(entry.refuse("is negative"));
        }
        self.first.get_or_insert(entry);
        Ok((value != 0).then_some(value))
    }

    /// The health check for the engine; `None` means the image's own.
    pub(super) fn config(&self) -> Result<Option<HealthConfig>, OptionError> {
        let changed = self.check != HealthConfig::default();
        match (&self.disabled, &self.first) {
            (Some(disabled), Some(first)) if changed => Err(first.conflict(&disabled.option)),
            (Some(_), _) => Ok(Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            })),
            (None, _) => Ok(changed.then(|| self.check.clone())),
        }
    }
}

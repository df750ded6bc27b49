"""What the dialogs of subentries have in common."""

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigSubentry,
    ConfigSubentryFlow,
)

from ..coordinator import TcpMultiplexerConfigEntry


class SubentryDialog(ConfigSubentryFlow):
    """A dialog that adds a subentry, or changes one."""

    @property
    def _entry(self) -> TcpMultiplexerConfigEntry:
        """The entry that it belongs to."""
        return self._get_entry()

    @property
    def _changed(self) -> ConfigSubentry | None:
        """The subentry that is changed; None if one is added."""
        if self.source == SOURCE_RECONFIGURE:
            return self._get_reconfigure_subentry()
        return None

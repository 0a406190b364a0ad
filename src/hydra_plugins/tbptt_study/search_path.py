"""Have Hydra find the configs in ``conf/`` of the working folder before the shipped ones (tbptt.system.folders)."""

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin


class WorkingFolder(SearchPathPlugin):
    """Hydra asks it whenever it makes a search path, for a command as for a config that is only composed."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from tbptt.system import folders

        first = folders.first()
        main = next((part.path for part in search_path.get_path() if part.provider == "main"), None)
        if first is None or main is None:
            return
        # With the primary config in --config-dir, that folder is the main one and the shipped ones are added last.
        insert = search_path.prepend if folders.is_shipped(main) else search_path.append
        insert("tbptt", str(first), SearchPathQuery(provider="main"))

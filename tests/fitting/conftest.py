from small_networks import cells, config, network, run

__all__ = ["cells", "config", "network", "run"]

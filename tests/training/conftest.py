from small_networks import cells, config, network, one_thread, run

__all__ = ["cells", "config", "network", "one_thread", "run"]

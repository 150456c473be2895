"""``python -m kv_app`` runs one node; its settings come from the environment."""

from kv_app.main import main

if __name__ == "__main__":
    main()

from utils import threads

threads.configure_threads()

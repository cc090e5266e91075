from utils import threads

threads.settle()

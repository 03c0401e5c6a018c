"""A test of all images: the server answers."""


def test_the_server_answers_on_localhost(container, http_client):
    container.run()
    answer = http_client.get("http://localhost:@PORT@")
    assert answer.status_code == 200
    assert answer.text == "a page\n"
